package config

import (
	"net/url"
	"regexp"
	"strings"
)

// bucketName is what S3 allows.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// checkBuckets refuses a record in S3 without a bucket, a bucket without a record in S3, and two uses of one place.
func (c *Config) checkBuckets(refuse refuser) {
	r, e := &c.Record, &c.Exports.S3
	if r.Store == RecordS3 {
		if r.S3.Bucket == "" {
			refuse("record.s3.bucket", "is missing; record.store is s3")
		}
		if why := c.whyNoRecord(); why != "" {
			refuse("record.store", "is s3, but %s", why)
		}
		r.S3.check("record.s3", refuse)
	} else if key := r.S3.anySet(); key != "" {
		refuse("record.s3."+key, "is set, but record.store is %s; set record.store to s3 or leave it out", r.Store)
	}
	if e.Bucket == "" {
		if key := e.anySet(); key != "" {
			refuse("exports.s3."+key, "is set, but exports.s3.bucket is not")
		}
		return
	}
	e.check("exports.s3", refuse)
	if r.Store == RecordS3 && r.S3.Bucket == e.Bucket && r.S3.Endpoint == e.Endpoint && nested(r.S3.Prefix, e.Prefix) {
		refuse("exports.s3.prefix", "exports and the record would lie in one folder of the bucket %s; give them different prefixes", e.Bucket)
	}
}

// whyNoRecord says why there is no record of clicks with these settings; "" if there is one. It is asked of every process, those that never reach their
// analytics engine too: a bucket that stays empty is noticed when it is needed. A worker makes none, but may share the file of those that do.
func (c *Config) whyNoRecord() string {
	switch a := &c.Analytics; {
	case c.Upstream != "":
		return "an edge node (upstream) sends its clicks to its control plane, which makes the record: leave it local"
	case !a.Enabled || !c.Clicks.Enabled:
		return "analytics.enabled or clicks.enabled is false: the analytics engine makes the record of clicks"
	case a.Engine == EngineClickHouse:
		return "analytics.engine is clickhouse, which keeps no record: leave it local"
	}
	return ""
}

// nested reports whether one folder lies in the other.
func nested(a, b string) bool {
	a, b = strings.Trim(a, "/")+"/", strings.Trim(b, "/")+"/"
	return a == "/" || b == "/" || strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

func (s *S3) check(section string, refuse refuser) {
	if s.Bucket != "" && !bucketName.MatchString(s.Bucket) {
		refuse(section+".bucket", "%q is not the name of a bucket: 3 to 63 small letters, digits, dots and hyphens", s.Bucket)
	}
	if len(s.Prefix) > 500 || strings.ContainsAny(s.Prefix, "\\?#*") || strings.Contains(s.Prefix, "//") || strings.Contains("/"+s.Prefix+"/", "/../") {
		refuse(section+".prefix", "%q is not the beginning of names of objects, such as terse/production", s.Prefix)
	}
	if (s.AccessKeyID == "") != (s.SecretAccessKey == "") {
		refuse(section+".access_key_id", "and %s.secret_access_key go together: set both or none", section)
	}
	if s.Endpoint == "" {
		return
	}
	u, err := url.Parse(s.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		refuse(section+".endpoint", "is not a URL such as https://minio.example.com")
	}
}

// anySet returns the key of a value that is set beside the bucket, or of the bucket; "" if none is.
func (s *S3) anySet() string {
	switch {
	case s.Bucket != "":
		return "bucket"
	case s.Endpoint != "":
		return "endpoint"
	case s.Prefix != "":
		return "prefix"
	case s.Region != "":
		return "region"
	case s.PathStyle:
		return "path_style"
	case s.AccessKeyID != "":
		return "access_key_id"
	case s.SecretAccessKey != "":
		return "secret_access_key"
	}
	return ""
}
