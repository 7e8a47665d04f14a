package storecopy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// MismatchError says how a copy differs from its source.
type MismatchError struct{ Differences []string }

// Error implements error.
func (e *MismatchError) Error() string {
	return "the copy is not like the source:\n  " + strings.Join(e.Differences, "\n  ")
}

// maxDifferences bounds what is told.
const maxDifferences = 20

// verify compares the target with the source.
func (c *copier) verify(ctx context.Context) error {
	total := c.report.Source.LinkCount()
	for attempt := 1; ; attempt++ {
		target, err := survey(ctx, c.o.To, 0, func(n uint64) { c.o.Progress(Progress{PhaseVerifying, n, total}) })
		if err != nil {
			return fmt.Errorf("read the target: %w", err)
		}
		list := c.compare(target)
		if len(list) > 0 && c.o.Settle != nil && c.o.Settle(ctx, attempt) {
			continue
		}
		more, err := c.compareSample(ctx)
		if err != nil {
			return fmt.Errorf("look up links of the target: %w", err)
		}
		if list = append(list, more...); len(list) > 0 {
			return &MismatchError{list[:min(len(list), maxDifferences)]}
		}
		return nil
	}
}

// compare compares numbers and digests.
func (c *copier) compare(target *Survey) []string {
	source := c.report.Source
	var list []string
	one := func(what string, a, b Tally) {
		switch {
		case a.N != b.N:
			list = append(list, fmt.Sprintf("%s: %d in the source, %d in the copy", what, a.N, b.N))
		case a.Digest != b.Digest:
			list = append(list, fmt.Sprintf("%s: as many as in the source, %d, but not the same", what, a.N))
		}
	}
	hosts := map[terse.DomainID]string{}
	for n := range source.Links {
		if d := c.names.ByNumber(n); d != nil {
			hosts[n] = d.Host
		}
	}
	for _, d := range keys(source.Links, target.Links) {
		one(fmt.Sprintf("links of domain %d %s", d, hosts[d]), source.Links[d], target.Links[d])
	}
	for _, k := range keys(source.Kinds, target.Kinds) {
		one(fmt.Sprintf("documents of kind %s", k), source.Kinds[k], target.Kinds[k])
	}
	one("counters", source.Counters, target.Counters)
	one("reserved codes", source.Reserved, target.Reserved)
	one("retired codes", source.Retired, target.Retired)
	return list
}

// keys returns the keys of both maps, ascending.
func keys[K interface{ ~string | ~uint32 }](a, b map[K]Tally) []K {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// lookUp is how many links of the sample are asked for at once.
const lookUp = 100

// compareSample looks links up as visitors do, and compares them field by field.
func (c *copier) compareSample(ctx context.Context) ([]string, error) {
	var list []string
	sample := c.report.Source.sample
	c.setCodes(sample)
	for part := range slices.Chunk(sample, lookUp) {
		names, found := make([]terse.LinkKey, len(part)), make([]terse.Link, len(part))
		for i := range part {
			names[i] = terse.LinkKey{Number: part[i].Number, Code: part[i].Code}
		}
		if err := again(ctx, func() error { return c.o.To.GetLinks(ctx, names, found) }); err != nil {
			return nil, err
		}
		for i := range part {
			l := &part[i]
			if l.Named() {
				err := again(ctx, func() (err error) { found[i], err = c.o.To.GetAlias(ctx, l.Number.Domain(), l.Code); return err })
				if err != nil && !errors.Is(err, terse.ErrNotFound) {
					return nil, err
				}
			}
			c.report.Sampled++
			if found[i].Number == 0 {
				list = append(list, fmt.Sprintf("link %s is not found", l.Number))
			} else if fields := differences(l, &found[i]); len(fields) > 0 {
				list = append(list, fmt.Sprintf("link %s: %s differ", l.Number, strings.Join(fields, ", ")))
			}
		}
	}
	return list, nil
}

// differences returns the names of the fields in which two links differ. A code that a store does not keep is none.
func differences(a, b *terse.Link) []string {
	var list []string
	field := func(name string, same bool) {
		if !same {
			list = append(list, name)
		}
	}
	field("number", a.Number == b.Number)
	field("workspace", a.Workspace == b.Workspace)
	field("campaign", a.Campaign == b.Campaign)
	field("version", a.Version == b.Version)
	field("created_at", a.CreatedAt == b.CreatedAt)
	field("updated_at", a.UpdatedAt == b.UpdatedAt)
	field("expires_at", a.ExpiresAt == b.ExpiresAt)
	field("code", a.Code == b.Code || !a.Named() && (a.Code == "" || b.Code == ""))
	field("destination", a.Destination == b.Destination)
	field("values", a.Values == b.Values)
	field("external_id", a.ExternalID == b.ExternalID)
	field("status", a.Status == b.Status)
	field("by_code", a.ByCode == b.ByCode)
	field("default_expiry", a.DefaultExpiry == b.DefaultExpiry)
	field("redirect_status", a.RedirectStatus == b.RedirectStatus)
	field("settings", canonical(a.Settings) == canonical(b.Settings))
	return list
}
