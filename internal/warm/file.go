// Package warm keeps what a redirect plane needs most in a file on local disk: the hottest links, their
// campaigns, and the domains. A plane that starts while its store cannot be reached serves visitors
// from it.
//
// It is not a cache and not a copy of the store: it is read once, at the start, and
// whatever the store answers afterwards goes before it (package cache, Preload). So what it says
// may be as old as its Saved time, and is used only while nobody knows better.
//
// Invariants:
//
//   - The file at its path is whole: it is written beside its place, synced and renamed.
//   - A file is never replaced by one of a lower or the same generation.
//   - A file that is damaged or of an unknown version is never used, in part either: Load moves it
//     aside and says so, and the plane starts without.
//
// The format is docs/format/warm.md.
package warm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkjson"
)

// Content is what a file holds.
type Content struct {
	Generation  uint64       // grows with every file that is written
	Saved       terse.Millis // when the store was asked for all of it
	Domains     []terse.Document
	DefaultHost string // of the domain that is the instance's default; "": none
	Campaigns   []terse.Document
	Links       []terse.Link // the hottest first, each with its Code
}

// maxAge is the age from which on a file is not used: a node that was off for long knows nothing
// of links that were blocked, deleted or changed meanwhile.
const maxAge = terse.Millis(24 * time.Hour / time.Millisecond)

// Usable reports whether visitors may be served from it.
func (c *Content) Usable(now terse.Millis) bool { return now-c.Saved <= maxAge }

// FileName is the name of the file in the data folder.
const FileName = "warm.bin"

const (
	magic         = "TERSEWRM"
	formatVersion = 1
	headerBytes   = len(magic) + 4 + 8 + 8
	trailerBytes  = 1 + 4 + 4
	// maxRecord bounds what one record makes a reader allocate. A document is below 256 KiB, a link
	// below 1 MiB.
	maxRecord = 4 << 20
)

// Kinds of records.
const (
	recordEnd      = 0
	recordDomain   = 1
	recordDefault  = 2
	recordCampaign = 3
	recordLink     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// document is the payload of a domain and of a campaign.
type document struct {
	Workspace terse.WorkspaceID `json:"workspace,omitempty"`
	ID        string            `json:"id"`
	Version   uint64            `json:"version"`
	Data      json.RawMessage   `json:"data"`
}

// Append appends the bytes of a file. Links that do not fit into limit bytes are left out.
func Append(dst []byte, c *Content, limit int) ([]byte, error) {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, formatVersion)
	dst = binary.LittleEndian.AppendUint64(dst, c.Generation)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Saved))
	count := uint32(0)
	add := func(kind byte, payload []byte) {
		dst = append(dst, kind)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
		dst = append(dst, payload...)
		count++
	}
	for kind, list := range [][]terse.Document{recordDomain: c.Domains, recordCampaign: c.Campaigns} {
		for _, d := range list {
			b, err := json.Marshal(document{d.Workspace, d.ID, d.Version, d.Data})
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", d.ID, err)
			}
			add(byte(kind), b)
		}
	}
	if c.DefaultHost != "" {
		add(recordDefault, []byte(c.DefaultHost))
	}
	for i := range c.Links {
		l := &c.Links[i]
		b, err := linkjson.Marshal(l)
		if err != nil {
			return nil, fmt.Errorf("encode link %s: %w", l.Number, err)
		}
		if len(dst)-start+5+len(b)+trailerBytes > limit {
			break
		}
		add(recordLink, b)
	}
	dst = append(dst, recordEnd)
	dst = binary.LittleEndian.AppendUint32(dst, count)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli)), nil
}

// errDamaged says that bytes are no file of this format.
func errDamaged(why string) error {
	return &terse.Error{Code: terse.CodeInternal, Message: "the file of warm links is damaged", Err: errors.New(why)}
}

// Decode reads the bytes of a file: all of it or nothing.
func Decode(b []byte) (*Content, error) {
	if len(b) < headerBytes+trailerBytes || string(b[:len(magic)]) != magic {
		return nil, errDamaged("it is cut, or something else")
	}
	if v := binary.LittleEndian.Uint32(b[len(magic):]); v != formatVersion {
		return nil, errDamaged(fmt.Sprintf("its format is %d, this version of Terse reads %d", v, formatVersion))
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errDamaged("its checksum differs")
	}
	c := &Content{
		Generation: binary.LittleEndian.Uint64(b[len(magic)+4:]),
		Saved:      terse.Millis(binary.LittleEndian.Uint64(b[len(magic)+12:])),
	}
	rest := body[headerBytes:]
	for count := uint32(0); ; count++ {
		if len(rest) < 5 {
			return nil, errDamaged("a record is cut")
		}
		kind, n := rest[0], binary.LittleEndian.Uint32(rest[1:])
		rest = rest[5:]
		if kind == recordEnd {
			if n != count || len(rest) != 0 {
				return nil, errDamaged("records are missing, or something follows the last")
			}
			return c, nil
		}
		if n > maxRecord || uint64(n) > uint64(len(rest)) {
			return nil, errDamaged("a record is too long")
		}
		if err := c.record(kind, rest[:n]); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
}

func (c *Content) record(kind byte, payload []byte) error {
	switch kind {
	case recordDefault:
		c.DefaultHost = string(payload)
	case recordDomain, recordCampaign:
		var d document
		if err := json.Unmarshal(payload, &d); err != nil {
			return errDamaged("a document: " + err.Error())
		}
		doc := terse.Document{Workspace: d.Workspace, Kind: terse.KindDomain, ID: d.ID, Version: d.Version, Data: d.Data}
		if kind == recordDomain {
			c.Domains = append(c.Domains, doc)
			return nil
		}
		doc.Kind = terse.KindCampaign
		c.Campaigns = append(c.Campaigns, doc)
	case recordLink:
		l, err := linkjson.Unmarshal(payload)
		if err != nil {
			return errDamaged("a link: " + err.Error())
		}
		if l.Number == 0 || l.Code == "" {
			return errDamaged("a link has no number or no code")
		}
		c.Links = append(c.Links, l)
	default:
		return errDamaged(fmt.Sprintf("records of kind %d are not known", kind))
	}
	return nil
}

// MaxBytes is the largest file that Load reads.
const MaxBytes = 1 << 30

// Load reads a file. Returns an empty Content without error if there is none. A file that cannot be used
// is moved aside to path + ".bad", over the one before, and its error is returned beside an empty Content.
func Load(path string) (*Content, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Content{}, nil
	}
	if err != nil {
		return &Content{}, fmt.Errorf("read warm links: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return &Content{}, fmt.Errorf("read warm links: %w", err)
	}
	if len(b) > MaxBytes {
		err = errDamaged("it is longer than 1 GiB")
	}
	var c *Content
	if err == nil {
		c, err = Decode(b)
	}
	if err != nil {
		return &Content{}, errors.Join(fmt.Errorf("read warm links: %w", err), os.Rename(path, path+".bad"))
	}
	return c, nil
}

// ErrOlder is returned by Save if the file on disk is not of an earlier generation: another process
// writes it.
var ErrOlder = errors.New("the file of warm links is newer than what was to be written over it")

// Save writes a file of at most about limit bytes, whole or not at all: durable on return, readable by its
// owner only, as it holds the permutation keys of domains. Domains and campaigns always fit.
func Save(path string, c *Content, limit int) (size int, err error) {
	if g, err := generation(path); err != nil {
		return 0, err
	} else if g >= c.Generation {
		return 0, ErrOlder
	}
	b, err := Append(nil, c, limit)
	if err != nil {
		return 0, err
	}
	if err := replace(path, b); err != nil {
		return 0, fmt.Errorf("write warm links: %w", err)
	}
	return len(b), nil
}

// generation reads the generation of the file on disk; 0 if there is none that counts.
func generation(path string) (uint64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at warm links: %w", err)
	}
	defer f.Close()
	var header [headerBytes]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || !bytes.HasPrefix(header[:], []byte(magic)) {
		return 0, nil //nolint:nilerr // it is no such file: it may be replaced
	}
	return binary.LittleEndian.Uint64(header[len(magic)+4:]), nil
}

// replace puts content in the place of a file in one step.
func replace(path string, content []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".warm-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
