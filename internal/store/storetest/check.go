package storetest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
)

// wantErr fails the test unless err is want; a nil want means no error.
func wantErr(t tb, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

// wantInvalid fails the test unless err says that the field is invalid.
func wantInvalid(t tb, what string, err error, field string) {
	t.Helper()
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.Code != terse.CodeInvalid || e.Field != field {
		t.Fatalf("%s: got error %v, want one of code invalid for the field %q", what, err, field)
	}
}

// wantRows fails the test unless err names exactly the rows.
func wantRows(t tb, err error, rows ...int) {
	t.Helper()
	if !errors.Is(err, terse.ErrAliasTaken) {
		t.Fatalf("got error %v, want a conflict in rows %d", err, rows)
	}
	e, ok := errors.AsType[*terse.AliasConflictError](err)
	if !ok {
		t.Fatalf("got error %v of type %T, want *terse.AliasConflictError", err, err)
	}
	if !slices.Equal(e.Rows, rows) {
		t.Fatalf("got conflicts in rows %d, want %d", e.Rows, rows)
	}
}

// asStored returns what a store gives back for a link that was inserted.
func asStored(l terse.Link) terse.Link {
	l.Reserves = 0
	if l.Settings != nil && cmp.Equal(*l.Settings, terse.LinkSettings{}, cmpopts.EquateEmpty()) {
		l.Settings = nil
	}
	return l
}

// diffLink returns how got differs from the link that was inserted as want, ""
// if it does not. A store need not know the code of a generated link.
func diffLink(got, want terse.Link) string {
	got, want = asStored(got), asStored(want)
	if got.Code == "" && !want.Named() {
		want.Code = ""
	}
	a, b := got, want
	a.Settings, b.Settings = nil, nil
	if a == b && (got.Settings == nil) == (want.Settings == nil) &&
		(got.Settings == nil || cmp.Equal(got.Settings, want.Settings, cmpopts.EquateEmpty())) {
		return ""
	}
	return fmt.Sprintf("link %s (-want +got):\n%s", want.Number, cmp.Diff(want, got, cmpopts.EquateEmpty()))
}

// get returns the stored links of the numbers of links; a missing one is a zero Link.
func (c *scope) get(links ...terse.Link) []terse.Link {
	c.Helper()
	keys := make([]terse.LinkKey, len(links))
	for i, l := range links {
		keys[i] = terse.LinkKey{Number: l.Number, Code: l.Code}
	}
	dst := make([]terse.Link, len(links))
	for i := range dst {
		dst[i].Destination = "left over" // GetLinks overwrites every element
	}
	if err := c.store.GetLinks(c.ctx, keys, dst); err != nil {
		c.Fatalf("GetLinks of %d keys: %v", len(keys), err)
	}
	return dst
}

// wantStored fails the test unless the links are stored as they are.
func (c *scope) wantStored(links ...terse.Link) {
	c.Helper()
	for i, got := range c.get(links...) {
		if d := diffLink(got, links[i]); d != "" {
			c.Fatalf("GetLinks: %s", d)
		}
		if got.Code != links[i].Code {
			c.Fatalf("GetLinks: link %s has the code %q, want that of the key, %q", got.Number, got.Code, links[i].Code)
		}
	}
	for _, l := range links {
		if !l.Named() {
			continue
		}
		got, err := c.store.GetAlias(c.ctx, l.Number.Domain(), l.Code)
		if err != nil {
			c.Fatalf("GetAlias of %q: %v", l.Code, err)
		}
		if d := diffLink(got, l); d != "" {
			c.Fatalf("GetAlias of %q: %s", l.Code, d)
		}
	}
}

// wantAbsent fails the test if any of the links is stored.
func (c *scope) wantAbsent(links ...terse.Link) {
	c.Helper()
	for i, got := range c.get(links...) {
		if d := cmp.Diff(terse.Link{}, got); d != "" {
			c.Fatalf("GetLinks of the missing %s: not a zero Link (-want +got):\n%s", links[i].Number, d)
		}
	}
}

// wantAliasFree fails the test if the alias leads anywhere.
func (c *scope) wantAliasFree(alias string) {
	c.Helper()
	l, err := c.store.GetAlias(c.ctx, c.d, alias)
	if !errors.Is(err, terse.ErrNotFound) {
		c.Fatalf("GetAlias of %q: got %v and link %+v, want ErrNotFound", alias, err, l)
	}
}
