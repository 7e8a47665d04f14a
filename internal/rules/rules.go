// Package rules decides where a visitor of one link goes: an ordered list of rules, each
// a list of conditions that must all hold, with a destination or weighted variants. The
// first rule that matches wins.
//
// It is not a language: conditions compare one fact with a list of values. It finds no
// facts; its caller looks up those that Set.Needs names, so that a link pays for the
// facts of its own rules only.
//
// Invariants: a Set is immutable and safe for any number of goroutines. What Check let
// through compiles, and what compiles is evaluated in the same way by Decide (visitors)
// and Explain (people who ask why). The same visitor gets the same variant of a link as
// long as its rules stay as they are, on every node, without a cookie.
package rules

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // rules name zones; the machine may have no database of them

	"github.com/cespare/xxhash/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
)

// Limits of the rules of one link.
const (
	MaxRules      = 50
	MaxConditions = 20
	MaxValues     = 500 // of one condition
	MaxValue      = 256 // bytes
	MaxVariants   = 16
	MaxWeight     = 1_000_000
	MaxTargets    = 255 // destinations and variants together: a click has one byte for the number
)

// Needs says which facts a Set looks at.
type Needs uint8

// The facts that cost a look-up or parsing.
const (
	NeedPlace   Needs = 1 << iota // Country
	NeedRegion                    // Region
	NeedAgent                     // Device, OS, Browser, Bot
	NeedVisitor                   // Visitor
)

// Facts are what a decision depends on. Strings and bytes are borrowed.
type Facts struct {
	Now      terse.Millis
	Country  string // ISO 3166-1 alpha-2; "" if not known
	Region   string // ISO 3166-2 such as DE-BE, or a name
	Device   string
	OS       string
	Browser  string
	Bot      string // name of the class of bots, "" for people
	Language []byte // Accept-Language
	Query    []byte // raw, without the question mark
	Referrer []byte // Referer, raw
	Visitor  uint64 // see Visitor
	Prefer   uint8  // number of the variant that the visitor had before; 0: none is known
}

// Set is the compiled rules of one link.
type Set struct {
	rules   []rule
	targets []string
	needs   Needs
}

type rule struct {
	conditions []condition
	first      uint8    // number of the first target, from 1
	weights    []uint32 // cumulative; nil: one destination
}

// Target is where a rule leads.
type Target struct {
	// Number counts the destinations and variants of all rules in their order, from 1;
	// 0: no rule matched.
	Number uint8
	// Rule is the index of the rule, Variant of the variant, -1 if the rule has none.
	Rule, Variant int
}

// Compile makes the form that decides. Rules that Check let through compile; others
// give an error of code invalid with the field, such as rules[2].conditions[0].values.
func Compile(in []terse.Rule) (*Set, error) {
	if len(in) > MaxRules {
		return nil, terse.Invalid("rules", "more than %d rules", MaxRules)
	}
	s := &Set{rules: make([]rule, len(in))}
	for i := range in {
		field := fmt.Sprintf("rules[%d]", i)
		if i > 0 && len(in[i-1].Conditions) == 0 {
			return nil, terse.Invalid(field, "never reached: the rule before it has no conditions and matches everybody")
		}
		if err := s.add(&s.rules[i], field, &in[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Set) add(r *rule, field string, in *terse.Rule) error {
	if len(in.Conditions) > MaxConditions {
		return terse.Invalid(field+".conditions", "more than %d conditions", MaxConditions)
	}
	r.conditions = make([]condition, len(in.Conditions))
	for j := range in.Conditions {
		at := fmt.Sprintf("%s.conditions[%d]", field, j)
		if err := r.conditions[j].compile(at, &in.Conditions[j]); err != nil {
			return err
		}
		s.needs |= needs[r.conditions[j].kind]
	}
	switch {
	case in.Destination != "" && len(in.Variants) != 0:
		return terse.Invalid(field+".variants", "a rule has a destination or variants, not both")
	case in.Destination != "":
		s.targets = append(s.targets, strings.Clone(in.Destination))
	case len(in.Variants) == 0:
		return terse.Invalid(field+".destination", "a rule needs a destination or variants")
	case len(in.Variants) == 1 || len(in.Variants) > MaxVariants:
		return terse.Invalid(field+".variants", "a rule has 2 to %d variants", MaxVariants)
	default:
		s.needs |= NeedVisitor
		total := uint32(0)
		for k, v := range in.Variants {
			if v.Destination == "" {
				return terse.Invalid(fmt.Sprintf("%s.variants[%d].destination", field, k), "the destination is missing")
			}
			if v.Weight > MaxWeight {
				return terse.Invalid(fmt.Sprintf("%s.variants[%d].weight", field, k), "the weight is 0 to %d", MaxWeight)
			}
			total += v.Weight
			r.weights = append(r.weights, total)
			s.targets = append(s.targets, strings.Clone(v.Destination))
		}
		if total == 0 {
			return terse.Invalid(field+".variants", "at least one weight is above 0")
		}
	}
	if len(s.targets) > MaxTargets {
		return terse.Invalid("rules", "more than %d destinations and variants in all", MaxTargets)
	}
	r.first = uint8(len(s.targets) - max(len(r.weights), 1) + 1)
	return nil
}

// Check validates rules and returns them with their destinations as parse renders them.
// parse gets the field, such as rules[0].variants[1].destination. The argument is not changed.
func Check(in []terse.Rule, parse func(field, url string) (string, error)) ([]terse.Rule, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if _, err := Compile(in); err != nil {
		return nil, err
	}
	out := make([]terse.Rule, len(in))
	for i, r := range in {
		var err error
		if r.Destination != "" {
			if r.Destination, err = parse(fmt.Sprintf("rules[%d].destination", i), r.Destination); err != nil {
				return nil, err
			}
		}
		variants := r.Variants
		r.Variants = nil
		for k, v := range variants {
			if v.Destination, err = parse(fmt.Sprintf("rules[%d].variants[%d].destination", i, k), v.Destination); err != nil {
				return nil, err
			}
			r.Variants = append(r.Variants, v)
		}
		out[i] = r
	}
	return out, nil
}

// CheckNames refuses values of conditions on os and browser that no visit has, so that a misspelled one does not stand there
// without ever matching. It is for rules that somebody sets: Check and Compile take those of before, too.
func CheckNames(in []terse.Rule) error {
	for i := range in {
		for j, c := range in[i].Conditions {
			what, names := "", []string(nil)
			switch c.Type {
			case types[system]:
				what, names = "system", agent.Systems()
			case types[browser]:
				what, names = "browser", agent.Browsers()
			}
			for k, v := range c.Values {
				if what != "" && !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, v) }) {
					return terse.Invalid(fmt.Sprintf("rules[%d].conditions[%d].values[%d]", i, j, k), "the %s is one of %s", what, strings.Join(names, ", "))
				}
			}
		}
	}
	return nil
}

// Needs says which facts Decide looks at.
func (s *Set) Needs() Needs { return s.needs }

// Targets returns the destinations in the order of their numbers; read only.
func (s *Set) Targets() []string { return s.targets }

// Decide returns the target of the first rule whose conditions all hold; Number 0 if none does.
//
// Hot path: 0 allocs/op, see TestDecideAllocs.
func (s *Set) Decide(link terse.LinkNumber, f *Facts) Target {
	for i := range s.rules {
		if r := &s.rules[i]; r.matches(f) {
			return r.target(i, link, f)
		}
	}
	return Target{Rule: -1, Variant: -1}
}

func (r *rule) matches(f *Facts) bool {
	for j := range r.conditions {
		if !r.conditions[j].holds(f) {
			return false
		}
	}
	return true
}

func (r *rule) target(i int, link terse.LinkNumber, f *Facts) Target {
	if r.weights == nil {
		return Target{Number: r.first, Rule: i, Variant: -1}
	}
	if k := int(f.Prefer) - int(r.first); f.Prefer != 0 && k >= 0 && k < len(r.weights) && r.live(k) {
		return Target{Number: f.Prefer, Rule: i, Variant: k}
	}
	v := pick(mix(f.Visitor^mix(uint64(link))+uint64(i)), r.weights)
	return Target{Number: r.first + uint8(v), Rule: i, Variant: v}
}

// live reports whether a variant has a weight.
func (r *rule) live(k int) bool {
	return k == 0 && r.weights[0] > 0 || k > 0 && r.weights[k] > r.weights[k-1]
}

// pick returns the index of the weight that the hash falls on.
func pick(hash uint64, cumulative []uint32) int {
	point, _ := bits.Mul64(hash, uint64(cumulative[len(cumulative)-1]))
	for i, c := range cumulative {
		if point < uint64(c) {
			return i
		}
	}
	return len(cumulative) - 1 // not reached: point is below the total
}

// mix spreads the bits of x (the finaliser of SplitMix64: Steele, Lea, Flood, 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Visitor makes the number that keeps a visitor on one variant, of the address (16 bytes;
// of IPv6 the network of 64 bits, as privacy addresses change) and the User-Agent.
//
// Hot path: 0 allocs/op, see TestDecideAllocs.
func Visitor(address [16]byte, userAgent []byte) uint64 {
	n := 8
	if address[10] == 0xff && address[11] == 0xff && [10]byte(address[:10]) == [10]byte{} {
		n = 16 // IPv4
	}
	return mix(xxhash.Sum64(address[:n])) ^ xxhash.Sum64(userAgent)
}

// Explanation says what became of one rule.
type Explanation struct {
	Matched    bool
	Conditions []ConditionExplanation
}

// ConditionExplanation says whether a condition held and what it saw.
type ConditionExplanation struct {
	Holds bool
	Saw   string // the fact, "" if it is not known
}

// Explain evaluates all conditions of all rules, those that Decide does not reach too.
func (s *Set) Explain(f *Facts) []Explanation {
	out := make([]Explanation, len(s.rules))
	for i := range s.rules {
		out[i].Matched = s.rules[i].matches(f)
		for j := range s.rules[i].conditions {
			c := &s.rules[i].conditions[j]
			out[i].Conditions = append(out[i].Conditions, ConditionExplanation{c.holds(f), c.saw(f)})
		}
	}
	return out
}

func local(now terse.Millis, zone *time.Location) time.Time {
	return time.UnixMilli(int64(now)).In(zone)
}
