package domains

import (
	"context"
	"errors"
	"fmt"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
)

// The strategies: how a space makes its codes (docs/codes.md compares them). A space
// has one for ever; changing that of a domain opens a space of a length never used.
const (
	StrategyPermuted  = "permuted"  // a keyed permutation of the index
	StrategyRandom    = "random"    // characters of a cryptographic generator, inserted if absent
	StrategySnowflake = "snowflake" // time, node and sequence, inserted if absent
)

// Lengths of secret codes: 22 characters of base62 hold 131 bits; a domain that folds case has
// 26 characters of its own alphabet instead, which hold 130.
const (
	secretLength       = int(terse.SecretSpace)
	secretLengthFolded = 26
)

// MaxDraws is how many codes are drawn for one link before its creation fails.
const MaxDraws = 10

func checkStrategy(s string) error {
	switch s {
	case StrategyPermuted, StrategyRandom, StrategySnowflake:
		return nil
	}
	return terse.Invalid("strategy", "the strategy is %s, %s or %s", StrategyPermuted, StrategyRandom, StrategySnowflake)
}

// Permuted reports whether the code of n is a permutation of its index, so that AppendCode
// knows it. The code of any other link is in the store only.
func (d *Domain) Permuted(n terse.LinkNumber) bool { return d.perms[n.Space()] != nil }

// IsSnowflake reports whether a canonical code has the form of a snowflake of the
// domain: such a code is nobody's alias.
func (d *Domain) IsSnowflake(canonical []byte) bool {
	if s := d.spaces[code.SnowflakeLength]; s == nil || s.Strategy != StrategySnowflake {
		return false
	}
	_, _, _, ok := code.ParseSnowflake(canonical)
	return ok
}

// Collisions returns how many codes were drawn that existed already.
func (r *Registry) Collisions() uint64 { return r.collisions.Load() }

// draw appends n codes of a space that is not permuted. They may exist already.
func (r *Registry) draw(ctx context.Context, d *Domain, s terse.SpaceID, n int, dst []byte) ([]byte, error) {
	alphabet, err := code.Lookup(DefaultAlphabet)
	if err != nil {
		return dst, err
	}
	if s >= terse.SecretSpace {
		if d.alphabet.Fold() {
			alphabet = d.alphabet
		}
		return code.RandomCodes(dst, alphabet, int(s), n), nil
	}
	sp := d.spaces[s]
	if sp == nil {
		return dst, &terse.Error{Code: terse.CodeInternal, Op: "draw code", Err: fmt.Errorf("%s has no space %d", d.Host, s)}
	}
	if sp.Strategy == StrategySnowflake {
		return r.snowflakes.Issue(ctx, sp.Epoch, n, dst)
	}
	return code.RandomCodes(dst, d.alphabet, int(s), n), nil
}

// issueDrawn numbers n links of a space that is not permuted and draws their codes.
func (r *Registry) issueDrawn(ctx context.Context, d *Domain, s terse.SpaceID, limit uint64, n int, b *Issued) error {
	b.Space, b.Length, b.ByCode = s, int(s), true
	var err error
	if b.Indexes, _, err = r.allocator(d, s, limit).Issue(ctx, n, b.Indexes[:0], nil); err != nil {
		return err
	}
	b.Codes, err = r.draw(ctx, d, s, n, b.Codes[:0])
	return err
}

// IssueSecret takes n codes of the class secret, which every domain has beside its strategy:
// guessing one is hopeless at any number of links.
func (r *Registry) IssueSecret(ctx context.Context, d *Domain, n int, b *Issued) error {
	length := secretLength
	if d.alphabet.Fold() {
		length = secretLengthFolded
	}
	return r.issueDrawn(ctx, d, terse.SpaceID(length), 0, n, b)
}

// Redraw returns another code for a link whose code was taken, and counts the
// collision. The number of the link stays.
func (r *Registry) Redraw(ctx context.Context, n terse.LinkNumber) (string, error) {
	r.collisions.Add(1)
	d := r.ByNumber(n.Domain())
	if d == nil {
		return "", terse.ErrNotFound
	}
	b, err := r.draw(ctx, d, n.Space(), 1, nil)
	return string(b), err
}

// ErrNoFreeCode says that every code drawn for a link existed already.
func ErrNoFreeCode() error {
	return &terse.Error{Code: terse.CodeUnavailable, Reason: "no_free_code", Message: fmt.Sprintf("%d codes were drawn and all of them are taken", MaxDraws)}
}

// errFull says that a domain has no length left.
func errFull() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "domain_full", Message: "every code length of the domain is used up"}
}

// grown sets the length that the domain goes on with when its space is full.
func grown(d *terse.Domain, a *code.Alphabet) error {
	if d.Strategy == StrategySnowflake {
		return errFull()
	}
	for d.CodeLength++; d.CodeLength <= a.MaxLength(); d.CodeLength++ {
		if s := spaceOf(d, d.CodeLength); s == nil || s.Strategy == d.Strategy {
			return nil
		}
	}
	return errFull()
}

// unusedLength returns the length at which a changed strategy begins: the shortest from
// the domain's present one on that it has never used.
func unusedLength(d *terse.Domain, a *code.Alphabet) (int, error) {
	from := d.CodeLength
	if from > a.MaxLength() { // it was a snowflake domain
		from = DefaultLength
	}
	for n := min(max(from, a.MinLength()), a.MaxLength()); n <= a.MaxLength(); n++ {
		if spaceOf(d, n) == nil {
			return n, nil
		}
	}
	return 0, errFull()
}

func spaceOf(d *terse.Domain, length int) *terse.Space {
	for i := range d.Spaces {
		if int(d.Spaces[i].Space) == length {
			return &d.Spaces[i]
		}
	}
	return nil
}

// openDrawn returns a new space of d.CodeLength whose codes are not permuted.
func openDrawn(d *terse.Domain, a *code.Alphabet, now terse.Millis) (terse.Space, error) {
	s := terse.Space{Space: terse.SpaceID(d.CodeLength), Strategy: d.Strategy, Alphabet: a.Name()}
	if d.Strategy == StrategySnowflake {
		s.Epoch, s.Cap = now, terse.MaxIndex+1
		return s, nil
	}
	p, err := code.NewPermutation(d.PermKey, a, d.CodeLength)
	if err != nil {
		return s, fmt.Errorf("open code space of %s: %w", d.Host, err)
	}
	// The same density for digits too: it is also how often a draw collides.
	s.Cap = code.Cap(p.N(), DefaultDensity)
	return s, nil
}

// checkLength settles the length of a domain's codes for its strategy.
func checkLength(d *terse.Domain, a *code.Alphabet) error {
	if d.Strategy != StrategySnowflake {
		if d.CodeLength < a.MinLength() || d.CodeLength > a.MaxLength() {
			return terse.Invalid("code_length", "codes of the alphabet %s have %d to %d characters", a.Name(), a.MinLength(), a.MaxLength())
		}
		return nil
	}
	if a.Name() != DefaultAlphabet {
		return terse.Invalid("strategy", "snowflakes are written in %s, the alphabet of the domain is %s", DefaultAlphabet, a.Name())
	}
	if d.CodeLength != code.SnowflakeLength {
		return terse.Invalid("code_length", "snowflakes have %d characters", code.SnowflakeLength)
	}
	return nil
}

// changeStrategy applies what a Patch says of strategy and length.
func changeStrategy(d *terse.Domain, a *code.Alphabet, p *Patch, now terse.Millis) error {
	was, length := d.Strategy, d.CodeLength
	if p.Strategy != nil {
		d.Strategy = *p.Strategy
		if d.Strategy == "" {
			d.Strategy = StrategyPermuted
		}
		if err := checkStrategy(d.Strategy); err != nil {
			return err
		}
	}
	switch {
	case p.CodeLength != nil:
		d.CodeLength = *p.CodeLength
	case d.Strategy == was:
	case d.Strategy == StrategySnowflake:
		d.CodeLength = code.SnowflakeLength
	default:
		var err error
		if d.CodeLength, err = unusedLength(d, a); err != nil {
			return err
		}
	}
	if d.Strategy == was && d.CodeLength == length {
		return nil
	}
	return openSpace(d, a, now)
}

// checkSpace reports what is wrong with a space that is not permuted.
func checkSpace(s *terse.Space) error {
	switch {
	case s.Strategy == StrategyRandom:
		return nil
	case s.Strategy == StrategySnowflake && s.Space == code.SnowflakeLength:
		return nil
	}
	return errors.New("made by the strategy " + s.Strategy + ", which this version does not know")
}
