// Package conversions records what clicks led to: leads, sales and other events. A conversion is a document of
// the store, durable before it is acknowledged and written once for its invoice or customer; the
// analytics engine's copy is made of the documents (package facts, docs/adr).
package conversions

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/links"
)

// Limits of a conversion, in bytes.
const (
	MaxText     = 255  // name, customer, invoice
	MaxMetadata = 4096 // keys and values together
	// maxAge is how far back a conversion may lie, and a minute how far ahead: clocks differ.
	maxAge   = 366 * 24 * 3_600_000
	maxAhead = 60_000
)

// Store is what the service uses of a terse.Store.
type Store interface {
	InsertLinks(ctx context.Context, chunk *terse.Chunk) error
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
}

// Options configure a Service. All are required.
type Options struct {
	Store Store
	// Find returns the link of a code on a host ("": the workspace's default) and the host.
	Find  func(ctx context.Context, a links.Actor, host, code string) (terse.Link, string, error)
	Clock func() terse.Millis
}

// Service records conversions. It is safe for concurrent use.
type Service struct{ o Options }

// New returns a service.
func New(o Options) *Service { return &Service{o} }

// NewConversion describes a conversion. Either Click is set, or Code and Customer.
type NewConversion struct {
	Click    string // id of a click
	Code     string
	Domain   string // host of Code; "" is the workspace's default
	Customer string
	Kind     string // lead, sale or custom
	Name     string // required for custom
	Amount   int64  // minor units
	Currency string // ISO 4217, required with an amount
	Invoice  string
	At       terse.Millis // 0: now
	Metadata map[string]string
}

// Record stores the conversion, unless it was before: then it returns the one that was stored first, and created is
// false. What makes two the same is kind and invoice, without an invoice kind, customer and name, and without a
// customer kind, click and name. Durable on return. Returns an error of code invalid, or
// not_found for a code that is none of the workspace. That a click exists is not asked: it may still be on its way.
func (s *Service) Record(ctx context.Context, a links.Actor, n NewConversion) (c analytics.Conversion, created bool, err error) {
	if c, err = s.build(ctx, a, &n); err != nil {
		return c, false, err
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return c, false, fmt.Errorf("record conversion: %w", err)
	}
	err = s.o.Store.PutDocument(ctx, terse.Document{Workspace: c.Workspace, Kind: terse.KindConversion, ID: c.ID, Version: 1, Data: data})
	if err == nil {
		return c, true, nil
	}
	if !errors.Is(err, terse.ErrExists) {
		return c, false, fmt.Errorf("record conversion: %w", err)
	}
	doc, err := s.o.Store.GetDocument(ctx, c.Workspace, terse.KindConversion, c.ID)
	if err != nil {
		return c, false, fmt.Errorf("read recorded conversion: %w", err)
	}
	var stored analytics.Conversion
	if err := json.Unmarshal(doc.Data, &stored); err != nil {
		return c, false, fmt.Errorf("read recorded conversion: %w", err)
	}
	return stored, false, nil
}

// RecordAll stores many conversions in one atomic write, for imports: none of them may have been stored before, or be
// there twice. Durable on return.
func (s *Service) RecordAll(ctx context.Context, a links.Actor, list []NewConversion) error {
	if len(list) == 0 {
		return nil
	}
	docs := make([]terse.Document, len(list))
	for i := range list {
		c, err := s.build(ctx, a, &list[i])
		if err != nil {
			return err
		}
		data, err := json.Marshal(&c)
		if err != nil {
			return fmt.Errorf("record conversions: %w", err)
		}
		docs[i] = terse.Document{Workspace: c.Workspace, Kind: terse.KindConversion, ID: c.ID, Version: 1, Data: data}
	}
	if err := s.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return fmt.Errorf("record conversions: %w", err)
	}
	return nil
}

// build checks a conversion and gives it its id.
func (s *Service) build(ctx context.Context, a links.Actor, n *NewConversion) (c analytics.Conversion, err error) {
	now := s.o.Clock()
	if n.At == 0 {
		n.At = now
	}
	c = analytics.Conversion{At: n.At, Workspace: a.Workspace, Name: n.Name, Amount: n.Amount, Currency: n.Currency, Customer: n.Customer, Invoice: n.Invoice, Metadata: n.Metadata}
	if c.Kind, err = analytics.ParseConversionKind(n.Kind); err != nil {
		return c, err
	}
	if err := check(n, c.Kind, now); err != nil {
		return c, err
	}
	if n.Click != "" {
		if c.Click, err = terse.ParseClickID(n.Click); err != nil || c.Click == (terse.ClickID{}) {
			return c, terse.Invalid("click_id", "is no id of a click")
		}
	} else {
		l, host, err := s.o.Find(ctx, a, n.Domain, n.Code)
		if err != nil {
			return c, err
		}
		c.Link, c.Campaign, c.Domain, c.Code = l.Number, l.Campaign, host, l.Code
	}
	c.ID = id(&c)
	return c, nil
}

// check looks at everything that needs no look-up.
func check(n *NewConversion, kind analytics.ConversionKind, now terse.Millis) error {
	switch {
	case n.Click == "" && n.Code == "":
		return terse.Invalid("click_id", "is missing: name the click, or code and customer_id")
	case n.Click != "" && (n.Code != "" || n.Domain != ""):
		return terse.Invalid("code", "is not for a conversion with a click_id")
	case n.Click == "" && n.Customer == "":
		return terse.Invalid("customer_id", "is missing: without a click_id the customer tells conversions apart")
	case kind == analytics.Custom && n.Name == "":
		return terse.Invalid("name", "is missing: a custom conversion has a name")
	case n.Amount != 0 && n.Currency == "":
		return terse.Invalid("currency", "is missing: an amount has a currency such as EUR")
	case n.Currency != "" && (len(n.Currency) != 3 || strings.Trim(n.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != ""):
		return terse.Invalid("currency", "is three capital letters such as EUR")
	case n.Amount > 1<<53 || n.Amount < -1<<53:
		return terse.Invalid("amount", "is out of range")
	case n.At > now+maxAhead:
		return terse.Invalid("ts", "lies in the future")
	case n.At < now-maxAge:
		return terse.Invalid("ts", "is more than a year ago")
	}
	for field, text := range map[string]string{"name": n.Name, "customer_id": n.Customer, "invoice_id": n.Invoice} {
		if len(text) > MaxText || !printable(text) {
			return terse.Invalid(field, "is at most %d bytes of text without control characters", MaxText)
		}
	}
	size := 0
	for k, v := range n.Metadata {
		size += len(k) + len(v)
		if k == "" || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return terse.Invalid("metadata", "keys and values are text, keys not empty")
		}
	}
	if size > MaxMetadata {
		return terse.Invalid("metadata", "is more than %d bytes", MaxMetadata)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// id returns the id of a conversion: a hash of what makes it the same as another.
func id(c *analytics.Conversion) string {
	key := []string{c.Kind.String(), "invoice", c.Invoice}
	switch {
	case c.Invoice != "":
	case c.Customer != "":
		key = []string{c.Kind.String(), "customer", c.Customer, c.Name}
	default:
		key = []string{c.Kind.String(), "click", c.Click.String(), c.Name}
	}
	sum := sha256.Sum256([]byte(strings.Join(key, "\x00"))) // no part holds a control character
	return Prefix + strings.TrimPrefix(terse.ClickID(sum[:16]).String(), terse.ClickPrefix)
}

// Prefix begins the ids of conversions.
const Prefix = "conv_"
