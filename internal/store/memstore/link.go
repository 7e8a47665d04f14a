package memstore

import (
	"context"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// InsertLinks inserts the chunk or nothing. The links decide before the
// documents: if both are in the way, the error is about the links.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if err := checkChunk(chunk); err != nil {
		return err
	}
	if err := s.enter(ctx, "insert links"); err != nil {
		return err
	}
	defer s.mu.Unlock()

	if rows := s.conflictsLocked(chunk.Links); len(rows) > 0 {
		return &terse.AliasConflictError{Rows: rows}
	}
	for i := range chunk.Documents {
		if err := s.checkPutLocked(&chunk.Documents[i]); err != nil {
			return err
		}
	}

	byWorkspace := map[terse.WorkspaceID][]terse.LinkNumber{}
	for i := range chunk.Links {
		l := &chunk.Links[i]
		s.addLocked(clone(l))
		if l.Reserves != 0 {
			if j, ok := slices.BinarySearch(s.reserved, l.Reserves); !ok {
				s.reserved = slices.Insert(s.reserved, j, l.Reserves)
			}
		}
		byWorkspace[l.Workspace] = append(byWorkspace[l.Workspace], l.Number)
	}
	workspaces := make([]terse.WorkspaceID, 0, len(byWorkspace))
	for w := range byWorkspace {
		workspaces = append(workspaces, w)
	}
	slices.Sort(workspaces)
	for _, w := range workspaces {
		numbers := byWorkspace[w]
		slices.Sort(numbers)
		seq := s.logLocked(terse.Change{Kind: terse.ChangeInserted, Workspace: w, Version: 1, Runs: runs(numbers)})
		for _, n := range numbers {
			s.order[w] = append(s.order[w], entry{seq: seq, number: n})
		}
	}
	for i := range chunk.Documents {
		s.putLocked(&chunk.Documents[i])
	}
	return nil
}

// checkChunk refuses what no caller may send, whatever the store holds.
func checkChunk(chunk *terse.Chunk) error {
	for i := range chunk.Links {
		l := &chunk.Links[i]
		switch {
		case l.Number == 0:
			return terse.Invalid("number", "link %d of the chunk has no number", i)
		case l.Named() && l.Code == "":
			return terse.Invalid("code", "link %d of the chunk has no code to be found by", i)
		case l.Reserves != 0 && (l.Number.Space() != terse.AliasSpace || l.Reserves.Domain() != l.Number.Domain() || l.Reserves.Space() == terse.AliasSpace):
			return terse.Invalid("reserves", "link %d of the chunk reserves what only an alias of that domain could", i)
		}
	}
	seen := map[docKey]struct{}{}
	for i := range chunk.Documents {
		d := &chunk.Documents[i]
		if err := checkDocument(d); err != nil {
			return err
		}
		if _, ok := seen[keyOf(d)]; ok {
			return terse.Invalid("documents", "the chunk puts a document twice")
		}
		seen[keyOf(d)] = struct{}{}
	}
	return nil
}

// conflictsLocked returns the links that are in the way of the chunk, ascending.
// A link is in the way if it could not be inserted after all links before it
// that are not: of two links with one alias the first is not in the way, so the
// chunk without the links named here would go in.
func (s *Store) conflictsLocked(links []terse.Link) []int {
	var rows []int
	numbers := make(map[terse.LinkNumber]struct{}, len(links))
	aliases := map[aliasKey]struct{}{}
	for i := range links {
		l := &links[i]
		_, live := s.links[l.Number]
		_, dead := s.dead[l.Number]
		_, twice := numbers[l.Number]
		taken := live || dead || twice
		if l.Named() {
			key := aliasKey{l.Number.Domain(), l.Code}
			_, live := s.aliases[key]
			_, twice := aliases[key]
			taken = taken || live || twice || s.issuedLocked(l.Reserves)
			if !taken {
				aliases[key] = struct{}{}
			}
		}
		if taken {
			rows = append(rows, i)
			continue
		}
		numbers[l.Number] = struct{}{}
	}
	return rows
}

// issuedLocked reports whether the number that an alias would reserve has been
// leased to somebody. One that was reserved before it was leased has not.
func (s *Store) issuedLocked(n terse.LinkNumber) bool {
	if n == 0 {
		return false
	}
	if _, ok := slices.BinarySearch(s.reserved, n); ok {
		return false
	}
	return n.Index() < s.next[spaceKey{n.Domain(), n.Space()}]
}

// addLocked stores a link under all its keys.
func (s *Store) addLocked(l terse.Link) {
	s.links[l.Number] = l
	if l.Named() {
		s.aliases[aliasKey{l.Number.Domain(), l.Code}] = l.Number
	}
	if l.Plain() {
		key := plainKey{l.Workspace, l.Number.Domain(), l.Destination}
		if s.plain[key] == nil {
			s.plain[key] = map[terse.LinkNumber]struct{}{}
		}
		s.plain[key][l.Number] = struct{}{}
	}
}

// removeLocked undoes addLocked, but for the key of a generated code: that leads nowhere
// then, and the code is never used again.
func (s *Store) removeLocked(l *terse.Link) {
	delete(s.links, l.Number)
	if l.Number.Space() == terse.AliasSpace {
		delete(s.aliases, aliasKey{l.Number.Domain(), l.Code})
	}
	key := plainKey{l.Workspace, l.Number.Domain(), l.Destination}
	delete(s.plain[key], l.Number)
	if len(s.plain[key]) == 0 {
		delete(s.plain, key)
	}
}

// GetLinks fills dst with the links of the keys. A key whose code is not that of
// the numbered link is a defect of the caller and fails the call: answering
// would send a visitor to somebody else's destination.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if len(keys) != len(dst) {
		return terse.Invalid("dst", "%d keys, but room for %d links", len(keys), len(dst))
	}
	if err := s.enter(ctx, "get links"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for i, key := range keys {
		dst[i] = terse.Link{}
		l, ok := s.links[key.Number]
		if !ok {
			continue
		}
		if key.Code != "" && l.Code != "" && key.Code != l.Code {
			return &terse.Error{Code: terse.CodeInternal, Message: "the code does not belong to the link", Op: "get links"}
		}
		dst[i] = clone(&l)
		if l.Code == "" {
			dst[i].Code = key.Code
		}
	}
	return nil
}

// GetAlias returns the link of an alias.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	if err := s.enter(ctx, "get alias"); err != nil {
		return terse.Link{}, err
	}
	defer s.mu.Unlock()
	n, ok := s.aliases[aliasKey{d, alias}]
	if !ok {
		return terse.Link{}, terse.ErrNotFound
	}
	l, ok := s.links[n]
	if !ok { // a generated code, deleted
		return terse.Link{}, terse.ErrNotFound
	}
	return clone(&l), nil
}

// FindPlain returns the oldest plain link with the destination that has not ended.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	if err := s.enter(ctx, "find plain link"); err != nil {
		return terse.Link{}, err
	}
	defer s.mu.Unlock()
	var found terse.Link
	for n := range s.plain[plainKey{w, d, destination}] {
		if l := s.links[n]; !l.ExpiredAt(at) && (found.Number == 0 || n < found.Number) {
			found = l
		}
	}
	if found.Number == 0 {
		return terse.Link{}, terse.ErrNotFound
	}
	return clone(&found), nil
}

// UpdateLink replaces a link. A link of another workspace is not found.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	if link.Version <= ifVersion {
		return terse.Invalid("version", "%d does not follow %d", link.Version, ifVersion)
	}
	if err := s.enter(ctx, "update link"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	old, ok := s.links[link.Number]
	switch {
	case !ok || old.Workspace != link.Workspace:
		return terse.ErrNotFound
	case old.Version != ifVersion:
		return terse.ErrVersion
	}
	s.removeLocked(&old)
	l := clone(link)
	l.Code, l.ByCode = old.Code, old.ByCode
	s.addLocked(l)
	s.logLocked(terse.Change{
		Kind: terse.ChangeUpdated, Workspace: l.Workspace, Version: l.Version,
		Runs: []terse.Run{{First: l.Number, Count: 1}},
	})
	return nil
}

// DeleteLink removes a link. Its number stays used for ever.
func (s *Store) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	if err := s.enter(ctx, "delete link"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	l, ok := s.links[key.Number]
	switch {
	case !ok:
		return terse.ErrNotFound
	case ifVersion != 0 && l.Version != ifVersion:
		return terse.ErrVersion
	}
	s.removeLocked(&l)
	s.dead[l.Number] = struct{}{}
	s.logLocked(terse.Change{
		Kind: terse.ChangeDeleted, Workspace: l.Workspace, Version: l.Version,
		Runs: []terse.Run{{First: l.Number, Count: 1}},
	})
	return nil
}

// runs joins ascending numbers into runs.
func runs(numbers []terse.LinkNumber) []terse.Run {
	var out []terse.Run
	for _, n := range numbers {
		if k := len(out) - 1; k >= 0 && out[k].First+terse.LinkNumber(out[k].Count) == n {
			out[k].Count++
			continue
		}
		out = append(out, terse.Run{First: n, Count: 1})
	}
	return out
}

// cloneSettings returns settings that share no memory with s.
func cloneSettings(s *terse.LinkSettings) *terse.LinkSettings {
	if s == nil {
		return nil
	}
	c := *s
	c.Title = strings.Clone(s.Title)
	c.ExpiredDestination = strings.Clone(s.ExpiredDestination)
	c.PasswordHash = strings.Clone(s.PasswordHash)
	c.CreatedBy = strings.Clone(s.CreatedBy)
	c.Tags = cloneStrings(s.Tags)
	if s.Metadata != nil {
		c.Metadata = make(map[string]string, len(s.Metadata))
		for k, v := range s.Metadata {
			c.Metadata[strings.Clone(k)] = strings.Clone(v)
		}
	}
	if s.ForwardQuery != nil {
		c.ForwardQuery = new(*s.ForwardQuery)
	}
	if s.Web != nil {
		c.Web = cloneWeb(s.Web)
	}
	if s.Block != nil {
		c.Block = new(terse.Block{Reason: strings.Clone(s.Block.Reason), By: strings.Clone(s.Block.By), Owner: s.Block.Owner})
	}
	c.Rules = slices.Clone(s.Rules)
	for i := range c.Rules {
		r := &c.Rules[i]
		r.Destination = strings.Clone(r.Destination)
		r.Conditions = slices.Clone(r.Conditions)
		for j := range r.Conditions {
			q := &r.Conditions[j]
			q.Type, q.Key, q.Values = strings.Clone(q.Type), strings.Clone(q.Key), cloneStrings(q.Values)
		}
		r.Variants = slices.Clone(r.Variants)
		for j := range r.Variants {
			r.Variants[j].Destination = strings.Clone(r.Variants[j].Destination)
		}
	}
	return &c
}

// cloneWeb returns settings that share no memory with w.
func cloneWeb(w *terse.LinkWeb) *terse.LinkWeb {
	c := *w
	for _, s := range []*string{&c.ReferrerPolicy, &c.NotStartedDestination, &c.LimitDestination, &c.QueryMode, &c.Sticky,
		&c.IOSDestination, &c.IOSStore, &c.AndroidDestination, &c.AndroidStore, &c.OGTitle, &c.OGDescription, &c.OGImage} {
		*s = strings.Clone(*s)
	}
	c.Pixels = slices.Clone(w.Pixels)
	for i := range c.Pixels {
		c.Pixels[i] = terse.Pixel{Provider: strings.Clone(c.Pixels[i].Provider), ID: strings.Clone(c.Pixels[i].ID)}
	}
	if w.NoIndex != nil {
		c.NoIndex = new(*w.NoIndex)
	}
	if w.UTM != nil {
		u := *w.UTM
		for _, s := range []*string{&u.Source, &u.Medium, &u.Campaign, &u.Term, &u.Content} {
			*s = strings.Clone(*s)
		}
		c.UTM = &u
	}
	return &c
}

func cloneStrings(list []string) []string {
	c := slices.Clone(list)
	for i := range c {
		c[i] = strings.Clone(c[i])
	}
	return c
}
