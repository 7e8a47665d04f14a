// Package bucket keeps files in a bucket of S3, or of another server that speaks its protocol: the record and
// scheduled exports.
//
// It does whole objects and nothing else: put, get, list, delete, create if absent. What is put is durable when the
// call returns, and replaces what had the name; a reader sees the old object or the new one, never a part. So a call that
// ended without an answer may be repeated. Errors are of the codes of the root package:
//
//   - not_found: there is no object of that name;
//   - conflict: another version is there than the one that Replace was to replace;
//   - unavailable: the server does not answer, or is overloaded; nothing is known of what happened;
//   - forbidden: the server answers and refuses, for the credentials or their rights;
//   - precondition: the bucket is not there, or the request is one that will never succeed.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/terselink/terse"
)

// Options say which bucket and how it is reached. Bucket is required.
type Options struct {
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix"` // before the name of every object; "" or "a/b/"; a missing slash at its end is added
	Region string `json:"region"` // default: where AWS programs find it; with an Endpoint us-east-1
	// Endpoint is the URL of a server that is not AWS; PathStyle has it address the bucket as the first part of the
	// path instead of the host.
	Endpoint  string `json:"endpoint"`
	PathStyle bool   `json:"path_style"`
	// AccessKeyID and SecretAccessKey: both or none. Default: where AWS programs find them (environment, shared
	// files, the role of the machine).
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`

	// Attempts is how often a request is made before its failure is the caller's; default 3.
	Attempts int `json:"-"`
	// Timeout bounds one request with its attempts, but those that move a file; default 30 s.
	Timeout time.Duration `json:"-"`
	// PartBytes is the size from which on a file is sent in parts; default 64 MiB, at least 5 MiB.
	PartBytes int64 `json:"-"`

	page int32 // objects of a listing in one answer, for tests; default: as many as the server gives
}

// moveTimeout bounds the sending or receiving of a file or a part of one, with its attempts.
const moveTimeout = 10 * time.Minute

// Bucket is a place for objects. It is safe for concurrent use.
type Bucket struct {
	o         Options
	s3        *s3.Client
	transport *http.Transport
}

// Open prepares the client. It talks to no bucket: a server that is down is met by the first call.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	if o.Bucket == "" {
		return nil, terse.Invalid("bucket", "is missing")
	}
	if (o.AccessKeyID == "") != (o.SecretAccessKey == "") {
		return nil, terse.Invalid("access_key_id", "and secret_access_key go together: set both or none")
	}
	if o.Prefix = strings.Trim(o.Prefix, "/"); o.Prefix != "" {
		o.Prefix += "/"
	}
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.PartBytes == 0 {
		o.PartBytes = 64 << 20
	}
	opts := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(so *retry.StandardOptions) {
				so.MaxAttempts, so.MaxBackoff = o.Attempts, 2*time.Second
				so.RateLimiter = ratelimit.None // a bucket that was away must not use up the retries of what follows
			})
		}),
	}
	if o.Region != "" {
		opts = append(opts, config.WithRegion(o.Region))
	}
	if o.AccessKeyID != "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeInvalid, Field: "bucket", Message: "the configuration of AWS cannot be read", Err: err}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		transport = c.GetTransport() // it knows AWS_CA_BUNDLE
	}
	transport.ResponseHeaderTimeout = time.Minute // a server that took a request and says nothing
	cfg.HTTPClient = &http.Client{Transport: transport}
	if cfg.Region == "" {
		if o.Endpoint == "" {
			return nil, terse.Invalid("region", "set a region here or in AWS_REGION")
		}
		cfg.Region = "us-east-1"
	}
	client := s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = o.PathStyle
		if o.Endpoint != "" {
			so.BaseEndpoint = &o.Endpoint
			// Not every server knows the checksums that AWS asks for beside that of the signature.
			so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	return &Bucket{o: o, s3: client, transport: transport}, nil
}

// Close lets go of idle connections. The bucket can be used all the same.
func (b *Bucket) Close() { b.transport.CloseIdleConnections() }

// Name returns what people call the place: "s3://bucket/prefix", with the server in front if it is not AWS.
func (b *Bucket) Name() string {
	name := "s3://" + path.Join(b.o.Bucket, b.o.Prefix)
	if b.o.Endpoint != "" {
		name += " at " + b.o.Endpoint
	}
	return name
}

// Ping reports whether the bucket can be listed.
func (b *Bucket) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	_, err := b.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.o.Bucket, Prefix: &b.o.Prefix, MaxKeys: aws.Int32(1)})
	return b.fault("list", "", err)
}

// List calls fn for every object whose name begins with prefix, by name. It stops at fn's error.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(name string, bytes int64) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &b.o.Bucket, Prefix: b.key(prefix)}
	if b.o.page > 0 {
		in.MaxKeys = &b.o.page
	}
	pages := s3.NewListObjectsV2Paginator(b.s3, in)
	for pages.HasMorePages() {
		page, err := func() (*s3.ListObjectsV2Output, error) {
			ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
			defer cancel()
			return pages.NextPage(ctx)
		}()
		if err != nil {
			return b.fault("list", prefix, err)
		}
		for i := range page.Contents {
			o := &page.Contents[i]
			name, ok := strings.CutPrefix(aws.ToString(o.Key), b.o.Prefix)
			if !ok || name == "" {
				continue // a folder that some console made
			}
			if err := fn(name, aws.ToInt64(o.Size)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete removes an object. One that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	_, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.o.Bucket, Key: b.key(name)})
	if err = b.fault("delete", name, err); terse.ErrorCode(err) == terse.CodeNotFound {
		return nil
	}
	return err
}

func (b *Bucket) key(name string) *string { return aws.String(b.o.Prefix + name) }

// fault gives an error of the client its code. The message says which bucket, and never a credential.
func (b *Bucket) fault(op, name string, err error) error {
	if err == nil {
		return nil
	}
	op = strings.TrimSpace(op + " " + name)
	if errors.Is(err, fs.ErrNotExist) { // the local file
		return fmt.Errorf("%s: %w", op, err)
	}
	code := terse.CodeUnavailable
	why := "does not answer"
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		why = "answers " + api.ErrorCode()
		switch api.ErrorCode() {
		case "NoSuchKey", "NotFound":
			return fmt.Errorf("%s: %w", op, terse.ErrNotFound)
		case "NoSuchBucket", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName", "EntityTooLarge", "InvalidRequest", "NotImplemented", "MethodNotAllowed":
			code = terse.CodePrecondition
		case "PreconditionFailed", "ConditionalRequestConflict":
			code = terse.CodeConflict
		case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "AccountProblem",
			"RequestTimeTooSkewed":
			code = terse.CodeForbidden
		}
	}
	return &terse.Error{Code: code, Reason: "bucket_" + strings.ReplaceAll(string(code), "precondition", "unusable"), Message: b.Name() + " " + why, Op: op, Err: err}
}
