package dynamostore

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// stored is a link with the item it was read from.
type stored struct {
	terse.Link
	item item
}

// readItems returns the links under the keys; one that is missing, deleted or not to be seen yet is zero.
func (s *Store) readItems(ctx context.Context, keys []key) ([]stored, *outcome, error) {
	found, o := s.getItems(ctx, keys)
	if o != nil {
		return nil, o, nil
	}
	items := make([]item, len(keys))
	for i, k := range keys {
		items[i] = found[k]
	}
	seen, o := s.visible(ctx, items)
	if o != nil {
		return nil, o, nil
	}
	out := make([]stored, len(keys))
	for i, it := range items {
		if !seen[i] || dead(it) {
			continue
		}
		l, err := readLink(it)
		if err != nil {
			return nil, nil, err
		}
		out[i] = stored{l, it}
	}
	return out, nil, nil
}

func (s *Store) readLinks(ctx context.Context, keys []key) ([]terse.Link, *outcome, error) {
	list, o, err := s.readItems(ctx, keys)
	if o != nil || err != nil {
		return nil, o, err
	}
	out := make([]terse.Link, len(list))
	for i := range list {
		out[i] = list[i].Link
	}
	return out, nil, nil
}

// GetLinks fills dst with the links of the keys. A key whose code leads to another generated link is
// a defect of the caller and fails the call: answering would send a visitor to somebody else's destination.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	const op = "get links"
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	list, err := s.find(ctx, op, keys)
	if err != nil {
		return err
	}
	for i := range list {
		dst[i] = list[i].Link
	}
	return nil
}

// find returns the links of the keys, zero where there is none.
func (s *Store) find(ctx context.Context, op string, keys []terse.LinkKey) ([]stored, error) {
	places := make([]key, len(keys))
	var numbers []key
	for i, k := range keys {
		if k.Code == "" {
			numbers = append(numbers, numberKey(k.Number))
		} else {
			places[i] = linkKey(k.Number.Domain(), k.Code)
		}
	}
	if len(numbers) > 0 {
		found, o := s.getItems(ctx, numbers)
		if o != nil {
			return nil, o.readErr(op)
		}
		for i, k := range keys {
			if k.Code == "" {
				// A number without a code leads to a key where nothing is.
				places[i] = linkKey(k.Number.Domain(), getStr(found[numberKey(k.Number)], "code"))
			}
		}
	}
	list, o, err := s.readItems(ctx, places)
	if o != nil {
		return nil, o.readErr(op)
	}
	if err != nil {
		return nil, err
	}
	for i := range list {
		switch l := &list[i]; {
		case l.Number == keys[i].Number || l.Number == 0:
		case l.Named() || keys[i].Number.Space() == terse.AliasSpace || keys[i].Code == "":
			*l = stored{} // the name is another's by now
		default:
			return nil, &terse.Error{Code: terse.CodeInternal, Message: "the code does not belong to the link", Op: op}
		}
	}
	return list, nil
}

// GetAlias returns the Named link of a code.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	const op = "get alias"
	if err := s.enter(ctx, op); err != nil {
		return terse.Link{}, err
	}
	list, o, err := s.readLinks(ctx, []key{linkKey(d, alias)})
	if o != nil {
		return terse.Link{}, o.readErr(op)
	}
	if err != nil {
		return terse.Link{}, err
	}
	if l := list[0]; l.Number != 0 && l.Named() {
		return l, nil
	}
	return terse.Link{}, terse.ErrNotFound
}

// current returns the link of a key. The code of a Named link may be missing or that of another.
func (s *Store) current(ctx context.Context, op string, k terse.LinkKey) (stored, error) {
	list, err := s.find(ctx, op, []terse.LinkKey{k})
	if err == nil && list[0].Number == 0 && k.Code != "" {
		list, err = s.find(ctx, op, []terse.LinkKey{{Number: k.Number}})
	}
	if err != nil {
		return stored{}, err
	}
	if list[0].Number == 0 {
		return stored{}, terse.ErrNotFound
	}
	return list[0], nil
}

// unchanged is the condition that the item is still the one that was read.
func (l *stored) unchanged() (string, item) {
	cond := "link_version = :v AND link_number = :n"
	values := item{":v": num(l.Version), ":n": num(l.Number)}
	if id, ok := getChunk(l.item); ok {
		cond += " AND chunk_id = :c"
		values[":c"] = id.value()
	}
	return cond, values
}

// UpdateLink replaces a link. A link of another workspace is not found.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	const op = "update link"
	if link.Version <= ifVersion {
		return terse.Invalid("version", "%d does not follow %d", link.Version, ifVersion)
	}
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	for {
		old, err := s.current(ctx, op, terse.LinkKey{Number: link.Number, Code: link.Code})
		switch {
		case err != nil:
			return err
		case old.Workspace != link.Workspace:
			return terse.ErrNotFound
		case old.Version != ifVersion:
			return terse.ErrVersion
		}
		l := *link
		l.Code, l.ByCode = old.Code, old.ByCode
		it, err := s.linkItem(&l, getStr(old.item, attrGPK), chunkID{})
		if err != nil {
			return err
		}
		it[attrGSK] = old.item[attrGSK]
		if l.Plain() && (!old.Plain() || old.Destination != l.Destination) {
			if o := s.putItems(ctx, []item{hintOf(&l)}); o != nil {
				return o.readErr(op)
			}
		}
		o := s.commit(ctx, []terse.Change{oneLink(terse.ChangeUpdated, &l)}, func() ([]types.TransactWriteItem, *outcome) {
			cond, values := old.unchanged()
			ops := []types.TransactWriteItem{s.putOp(it, cond, values)}
			if old.Campaign != l.Campaign {
				ops = s.appendCount(ops, &old.Link, -1)
				ops = s.appendCount(ops, &l, 1)
			}
			return ops, nil
		})
		if o.is(condition) && !o.maybe {
			continue // somebody was faster
		}
		if o != nil {
			return o.writeErr(op)
		}
		return nil
	}
}

func (s *Store) appendCount(ops []types.TransactWriteItem, l *terse.Link, n int64) []types.TransactWriteItem {
	if l.Campaign == 0 {
		return ops
	}
	return append(ops, s.countOp(countKey{l.Workspace, l.Campaign}, n))
}

func oneLink(kind terse.ChangeKind, l *terse.Link) terse.Change {
	return terse.Change{Kind: kind, Workspace: l.Workspace, Version: l.Version, Runs: []terse.Run{{First: l.Number, Count: 1}}}
}

// DeleteLink removes a link and leaves a tombstone: under the code, or for an alias, whose code becomes free,
// under the number.
func (s *Store) DeleteLink(ctx context.Context, k terse.LinkKey, ifVersion uint64) error {
	const op = "delete link"
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	for {
		old, err := s.current(ctx, op, k)
		switch {
		case err != nil:
			return err
		case ifVersion != 0 && old.Version != ifVersion:
			return terse.ErrVersion
		}
		o := s.commit(ctx, []terse.Change{oneLink(terse.ChangeDeleted, &old.Link)}, func() ([]types.TransactWriteItem, *outcome) {
			return s.deletion(&old), nil
		})
		if o.is(condition) && !o.maybe {
			continue // somebody was faster
		}
		if o != nil {
			return o.writeErr(op)
		}
		return nil
	}
}

func (s *Store) deletion(old *stored) []types.TransactWriteItem {
	cond, values := old.unchanged()
	place := keyOf(old.item)
	tombstone := func(k key) item {
		it := k.item()
		it["deleted"], it["link_number"] = yes(), num(old.Number)
		return it
	}
	var ops []types.TransactWriteItem
	if old.Number.Space() == terse.AliasSpace {
		ops = append(ops, s.deleteOp(place, cond, values))
	} else {
		ops = append(ops, s.putOp(tombstone(place), cond, values))
	}
	if old.Named() {
		ops = append(ops, s.putOp(tombstone(numberKey(old.Number)), "", nil))
	}
	if _, large := getChunk(old.item); old.Plain() && !large {
		ops = append(ops, s.deleteOp(key{hintPK(old.Workspace, old.Number.Domain(), old.Destination), be64(uint64(old.Number))}, "", nil))
	}
	return s.appendCount(ops, &old.Link, -1)
}
