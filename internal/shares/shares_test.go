package shares_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/shares"
	"github.com/terselink/terse/internal/store/memstore"
)

func TestShares(t *testing.T) {
	now := terse.Millis(1_795_000_000_000)
	clock := func() terse.Millis { return now }
	s := shares.New(memstore.New(clock), clock)
	ctx, me := t.Context(), links.Actor{Workspace: 1<<31 - 1, By: "owner"}
	made, err := s.Create(ctx, me, shares.NewShare{Scope: analytics.Scope{Tag: "sms"}, Name: "For the client", Password: "hunter2", ExpiresAt: now + 10}, nil)
	if err != nil || !strings.HasPrefix(made.ID, "share_") || made.PasswordHash == "" || strings.Contains(made.PasswordHash, "hunter2") {
		t.Fatalf("%+v, %v", made, err)
	}
	got, err := s.Open(ctx, made.ID)
	if d := cmp.Diff(made, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	list, err := s.List(ctx, me.Workspace, "", 10)
	if err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := s.List(ctx, 1, "", 10); err != nil || len(list) != 0 {
		t.Errorf("of another workspace: %v, %v", list, err)
	}
	for _, id := range []string{"", "share_", made.ID[:len(made.ID)-1], made.ID + "0", strings.ToUpper(made.ID), "share_" + strings.Repeat("0", 33), "link_" + made.ID[6:]} {
		if _, err := s.Open(ctx, id); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := s.Delete(ctx, 1, made.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("deleted by another workspace: %v", err)
	}
	now += 10
	if _, err := s.Open(ctx, made.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("after its end: %v", err)
	}
	if err := s.Delete(ctx, me.Workspace, made.ID); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, me.Workspace, made.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("deleted twice: %v", err)
	}
	for field, n := range map[string]shares.NewShare{
		"name": {}, "expires_at": {Name: "x", ExpiresAt: now}, "password": {Name: "x", Password: strings.Repeat("x", 201)},
	} {
		if _, err := s.Create(ctx, me, n, nil); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}
