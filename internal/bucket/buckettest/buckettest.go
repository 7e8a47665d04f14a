// Package buckettest gives tests buckets of the S3 server that scripts/engines starts.
package buckettest

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"crypto/rand"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/testengine"
)

// New makes a bucket for a test and returns how it is reached. It is removed with all that is in it.
func New(t testing.TB) bucket.Options {
	t.Helper()
	address, err := url.Parse(testengine.Address(t, testengine.S3))
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := address.User.Password()
	o := bucket.Options{
		Bucket: "test-" + strings.ToLower(rand.Text()), Region: "us-east-1", Endpoint: "http://" + address.Host, PathStyle: true,
		AccessKeyID: address.User.Username(), SecretAccessKey: secret,
	}
	client := s3.New(s3.Options{
		Region: o.Region, BaseEndpoint: &o.Endpoint, UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, ""),
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &o.Bucket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b := Open(t, o)
		for _, name := range Names(t, b) {
			if err := b.Delete(ctx, name); err != nil {
				t.Error(err)
			}
		}
		up, err := client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &o.Bucket})
		if err != nil {
			t.Error(err)
		} else if len(up.Uploads) > 0 {
			t.Errorf("%d uploads in parts were left behind, such as %s", len(up.Uploads), aws.ToString(up.Uploads[0].Key))
		}
		if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &o.Bucket}); err != nil {
			t.Error(err)
		}
	})
	return o
}

// Behind returns the options for reaching the bucket through a proxy that tests can break.
func Behind(t testing.TB, o bucket.Options) (*testengine.Proxy, bucket.Options) {
	t.Helper()
	p, address := testengine.NewProxy(t, o.Endpoint)
	o.Endpoint = address
	return p, o
}

// Open opens a bucket.
func Open(t testing.TB, o bucket.Options) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// Names returns the names of all objects, sorted.
func Names(t testing.TB, b *bucket.Bucket) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var names []string
	if err := b.List(ctx, "", func(name string, _ int64) error { names = append(names, name); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
