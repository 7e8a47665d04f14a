// Package testengine finds the servers that tests use: PostgreSQL, Redis and the others that
// scripts/engines starts. Tests of an engine run on the engine itself, never on a stand-in.
package testengine

import (
	"os"
	"testing"
)

// The environment variables in which scripts/engines gives the addresses.
const (
	Postgres   = "TERSE_TEST_POSTGRES"
	PgBouncer  = "TERSE_TEST_PGBOUNCER"
	Redis      = "TERSE_TEST_REDIS"
	ClickHouse = "TERSE_TEST_CLICKHOUSE"
	DynamoDB   = "TERSE_TEST_DYNAMODB"
	S3         = "TERSE_TEST_S3"
)

// Address returns the address of an engine. Without one the test is skipped and says how to
// start it; with CI=true that is a failure.
func Address(t testing.TB, variable string) string {
	t.Helper()
	address := os.Getenv(variable)
	switch {
	case address != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set: CI runs the tests of every engine (scripts/test starts them)", variable)
	default:
		t.Skipf("SKIPPED WITHOUT ITS ENGINE: %s is not set; scripts/engines start && eval \"$(scripts/engines env)\"", variable)
	}
	return address
}
