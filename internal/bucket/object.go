package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/terselink/terse"
)

// maxSmall bounds what Read returns.
const maxSmall = 1 << 20

// Put sends a file. It fails with fs.ErrNotExist if the file is not there, and sends nothing of one that it cannot read.
func (b *Bucket) Put(ctx context.Context, name, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if size := info.Size(); size > b.o.PartBytes {
		return b.fault("put", name, b.putParts(ctx, name, f, size))
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	_, err = b.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.o.Bucket, Key: b.key(name), Body: f, ContentLength: aws.Int64(info.Size())})
	return b.fault("put", name, err)
}

// putParts sends a large file in parts, each of which is repeated by itself. Until the last call there is no object
// of the name; parts of an attempt that failed are removed.
func (b *Bucket) putParts(ctx context.Context, name string, f *os.File, size int64) (err error) {
	part := max(b.o.PartBytes, (size+9_999)/10_000) // there are 10,000 parts at most
	up, err := b.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &b.o.Bucket, Key: b.key(name)})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.o.Timeout)
		defer cancel()
		_, aerr := b.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.o.Bucket, Key: b.key(name), UploadId: up.UploadId})
		err = errors.Join(err, aerr)
	}()
	var done []types.CompletedPart
	for at := int64(0); at < size; at += part {
		n := min(part, size-at)
		number := aws.Int32(int32(len(done) + 1))
		sent, err := func() (*s3.UploadPartOutput, error) {
			ctx, cancel := context.WithTimeout(ctx, moveTimeout)
			defer cancel()
			return b.s3.UploadPart(ctx, &s3.UploadPartInput{
				Bucket: &b.o.Bucket, Key: b.key(name), UploadId: up.UploadId, PartNumber: number, Body: io.NewSectionReader(f, at, n), ContentLength: &n,
			})
		}()
		if err != nil {
			return err
		}
		done = append(done, types.CompletedPart{ETag: sent.ETag, PartNumber: number})
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	_, err = b.s3.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.o.Bucket, Key: b.key(name), UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	return err
}

// Get fetches an object into a file, which is whole and synced under its name, or not there. Returns an error of code
// not_found if there is no such object, those of the package doc for what the server did, and one without a code for
// the local disk.
func (b *Bucket) Get(ctx context.Context, name, path string) error {
	limited, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	got, err := b.s3.GetObject(limited, &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: b.key(name)})
	if err != nil {
		return b.fault("get", name, err)
	}
	defer got.Body.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	body := &received{r: got.Body}
	n, err := io.Copy(f, body)
	switch {
	case body.err != nil && ctx.Err() == nil: // else the caller gave up, and the server is not to blame
		err = b.fault("get", name, body.err)
	case err == nil && got.ContentLength != nil && n != *got.ContentLength:
		err = &terse.Error{Code: terse.CodeUnavailable, Message: b.Name() + " sent a part of an object", Op: "get " + name, Err: io.ErrUnexpectedEOF}
	case err == nil:
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", name, errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// received is a body on its way, which tells its own errors from those of the disk that it is written to.
type received struct {
	r   io.Reader
	err error
}

func (r *received) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Read returns an object of 1 MiB at most, and what identifies this version of it for Replace. Returns an error of code
// not_found if there is no such object, too_large for a larger one, and those of the package doc.
func (b *Bucket) Read(ctx context.Context, name string) (data []byte, tag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	got, err := b.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: b.key(name)})
	if err != nil {
		return nil, "", b.fault("read", name, err)
	}
	defer got.Body.Close()
	data, err = io.ReadAll(io.LimitReader(got.Body, maxSmall+1))
	if err != nil {
		return nil, "", b.fault("read", name, err)
	}
	if len(data) > maxSmall {
		return nil, "", &terse.Error{Code: terse.CodeTooLarge, Message: fmt.Sprintf("%s in %s is larger than %d bytes", name, b.Name(), maxSmall), Op: "read " + name}
	}
	return data, aws.ToString(got.ETag), nil
}

// Replace writes a small object if the one that is there is still the version of the tag; "" if there is none. Returns
// an error of code conflict otherwise, and those of the package doc.
//
// After unavailable nobody knows whether it was written. A request whose answer got lost is made again within the
// call and may then meet what it wrote itself, so a conflict does not prove that somebody else wrote: who must know
// writes a value that nobody else writes, and reads.
func (b *Bucket) Replace(ctx context.Context, name, tag string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	in := &s3.PutObjectInput{Bucket: &b.o.Bucket, Key: b.key(name), Body: bytes.NewReader(data), ContentType: aws.String("application/json")}
	if tag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &tag
	}
	_, err := b.s3.PutObject(ctx, in)
	return b.fault("replace", name, err)
}
