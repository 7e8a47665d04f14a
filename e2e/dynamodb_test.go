package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// onDynamoDB makes a table by the command line and returns the environment of servers that use it.
func onDynamoDB(t *testing.T) []string {
	t.Helper()
	return onDynamoDBAt(t, testengine.Address(t, testengine.DynamoDB))
}

func onDynamoDBAt(t *testing.T, endpoint string) []string {
	t.Helper()
	table := fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano())
	env := []string{"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}
	for range 2 { // the second time it is there
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		cmd := exec.CommandContext(ctx, bin, "dynamodb", "create-table", "--table", table, "--endpoint", endpoint)
		cmd.Env = append(proc.Environ(), env...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil || !strings.Contains(string(out), table+" is ready") {
			t.Fatalf("create-table: %v\n%s", err, out)
		}
	}
	return append(env, "TERSE_STORE_ENGINE=dynamodb", "TERSE_STORE_DYNAMODB_TABLE="+table, "TERSE_STORE_DYNAMODB_ENDPOINT="+endpoint)
}

// TestCrashDynamoDB is TestCrash with the links in DynamoDB: what was acknowledged is there after every kill, whole, once.
func TestCrashDynamoDB(t *testing.T) {
	waits(t)
	_, at := newEngineSet(t, "dynamodb") // one of its own: there is as much to do as it can take
	env := onDynamoDBAt(t, at[testengine.DynamoDB])
	kills := 6
	if testing.Short() {
		kills = 2
	}
	runCrash(t, kills, env...)
}

// TestDynamoDBHasOneNode: a second node is refused while the first one lives, and says why.
func TestDynamoDBHasOneNode(t *testing.T) {
	waits(t)
	env := append(onDynamoDB(t), quick...)
	first := start(t, proc.Options{Env: env})
	_, err := proc.Start(t.Context(), proc.Options{Bin: bin, Data: t.TempDir(), Env: env})
	if err == nil || !strings.Contains(err.Error(), "the table belongs to the running node") {
		t.Fatalf("a second node: %v", err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, proc.Options{Env: env})
}

// TestDynamoDBTags: analytics know the tags of a link whose item has its code and not its number for a key, also when they
// change.
func TestDynamoDBTags(t *testing.T) {
	s := start(t, proc.Options{Env: append(onDynamoDB(t), quick...)})
	c := newClient(t, s)
	link, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/tagged", LinkSettings: client.LinkSettings{Tags: []string{"spring"}}})
	if err != nil {
		t.Fatal(err)
	}
	v := newVisitor(s, "User-Agent", agentDesktop)
	defer v.close()
	if status, _, err := v.look("GET", pathOf(link.ShortURL)); err != nil || status != 302 {
		t.Fatalf("visit: status %d, %v", status, err)
	}
	clicks := func(tag string) int64 {
		sum, err := c.Summary(t.Context(), client.Query{Period: "24h", Tag: tag})
		if err != nil {
			return -1 // analytics is starting
		}
		return sum.Total
	}
	until(t, 3*time.Minute, "the click is counted under its tag", func() bool { return clicks("spring") == 1 })
	if _, err := c.UpdateLink(t.Context(), link.ID, client.LinkPatch{LinkSettingsPatch: client.LinkSettingsPatch{Tags: client.Set([]string{"autumn"})}}); err != nil {
		t.Fatal(err)
	}
	until(t, 3*time.Minute, "and under the new one", func() bool { return clicks("autumn") == 1 && clicks("spring") == 0 })
}
