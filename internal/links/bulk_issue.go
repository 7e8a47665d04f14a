package links

import (
	"fmt"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// fewDomains is up to how many domains of a batch are told apart by looking at each.
const fewDomains = 8

// issuer returns the place of a domain among the issuers of the batch, which it joins.
func (b *batch) issuer(d *domains.Domain) int32 {
	if len(b.issuers) <= fewDomains {
		for i, known := range b.issuers {
			if known == d {
				return int32(i)
			}
		}
	} else if i, ok := b.places[d]; ok {
		return i
	}
	b.issuers = append(b.issuers, d)
	if b.places == nil {
		b.places = map[*domains.Domain]int32{}
	}
	b.places[d] = int32(len(b.issuers) - 1)
	return b.places[d]
}

// group sorts the links by domain, so that numbering them costs the same for one domain and
// for hundreds.
func (b *batch) group() {
	b.issuers, b.order, b.ends = b.issuers[:0], b.order[:0], b.ends[:0]
	clear(b.places)
	var at int32
	for i, d := range b.doms {
		if i == 0 || d != b.doms[i-1] {
			at = b.issuer(d)
		}
		for len(b.ends) < len(b.issuers) {
			b.ends = append(b.ends, 0)
		}
		b.ends[at]++
	}
	var start int32
	for i, n := range b.ends {
		b.ends[i] = start // for now where the next link of it goes
		start += n
	}
	for range b.doms {
		b.order = append(b.order, 0)
	}
	for i, d := range b.doms {
		if i == 0 || d != b.doms[i-1] {
			at = b.issuer(d)
		}
		b.order[b.ends[at]] = int32(i)
		b.ends[at]++
	}
}

// issue numbers the links: codes from the domain's current space, aliases from its
// alias space.
func (b *batch) issue(p *pipeline) error {
	b.group()
	for len(b.issued) < len(b.issuers) {
		b.issued = append(b.issued, domains.Issued{})
	}
	var start int32
	for k, d := range b.issuers {
		mine := b.order[start:b.ends[k]]
		start = b.ends[k]
		codes, aliases, secrets := 0, 0, 0
		for _, i := range mine {
			switch l := &b.links[i]; {
			case wantsSecret(l):
				secrets++
			case l.Code == "":
				codes++
			default:
				aliases++
			}
		}
		is := &b.issued[k]
		if codes > 0 {
			if err := p.s.o.Domains.Issue(p.ctx, d, codes, is); err != nil {
				return fmt.Errorf("issue codes: %w", err)
			}
		}
		var err error
		if b.indexes = b.indexes[:0]; aliases > 0 {
			if b.indexes, err = p.s.o.Domains.IssueAliases(p.ctx, d, aliases, b.indexes); err != nil {
				return fmt.Errorf("number aliases: %w", err)
			}
		}
		var secret domains.Issued // its codes live as long as the links that are cut from it
		if secrets > 0 {
			if err := p.s.o.Domains.IssueSecret(p.ctx, d, secrets, &secret); err != nil {
				return fmt.Errorf("issue secret codes: %w", err)
			}
		}
		ci, ai, si := 0, 0, 0
		for _, i := range mine {
			switch l := &b.links[i]; {
			case wantsSecret(l):
				l.Number, l.Code = secret.Number(d, si), view(secret.Codes[si*secret.Length:(si+1)*secret.Length])
				si++
			case l.Code == "":
				l.Number, l.ByCode = is.Number(d, ci), is.ByCode
				l.Code = view(is.Codes[ci*is.Length : (ci+1)*is.Length])
				ci++
			default:
				l.Number = terse.NewLinkNumber(d.Number, terse.AliasSpace, b.indexes[ai])
				ai++
			}
		}
	}
	return nil
}
