package agent

import (
	"bytes"
	_ "embed"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

// The list of npm crawler-user-agents (MIT, see data/LICENSE), made by
// scripts/update-agents, what it lacks, and our corrections of it.
var (
	//go:embed data/crawlers.tsv
	crawlersTSV string
	//go:embed data/additions.tsv
	additionsTSV string
	//go:embed data/overrides.tsv
	overridesTSV string
)

// pattern is one rule of the list.
type pattern struct {
	class   Class
	literal string         // must occur for the rule to match
	expr    *regexp.Regexp // nil: the literal alone decides
	word    bool           // the literal must stand alone: it is too short to be safe inside a word
}

// botList finds the rules that match a User-Agent. It is read-only.
type botList struct {
	patterns []pattern
	machine  *automaton
}

// loadBots compiles the list once. It panics if the list is damaged, which
// TestBotList excludes for every commit.
var loadBots = sync.OnceValue(func() *botList {
	list, err := compileBots(crawlersTSV+additionsTSV, overridesTSV)
	if err != nil {
		panic("agent: " + err.Error())
	}
	return list
})

// tagClass maps the tags of the list to classes.
var tagClass = map[string]Class{
	"search-engine":      Search,
	"social-preview":     Preview,
	"ai-crawler":         AI,
	"seo":                Monitor,
	"monitoring":         Monitor,
	"feed-reader":        Monitor,
	"advertising":        Monitor,
	"archiver":           Monitor,
	"academic":           Monitor,
	"http-library":       Library,
	"browser-automation": Automation,
	"scanner":            Scanner,
}

// wordMost is the length up to which a literal must stand alone: "008/" is a
// crawler, "…A008/" a phone.
const wordMost = 5

func compileBots(crawlers, overrides string) (*botList, error) {
	replaced := map[string]string{}
	for line := range strings.Lines(overrides) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(f) == 3 && line[0] != '#' {
			replaced[f[0]] = f[1]
		}
	}
	list := &botList{}
	for line := range strings.Lines(crawlers) {
		tags, expr, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || line[0] == '#' {
			continue
		}
		if r, ok := replaced[expr]; ok {
			expr = r
		}
		if expr == "-" {
			continue
		}
		class := Class(0)
		for tag := range strings.SplitSeq(tags, ",") {
			if c := tagClass[tag]; c != 0 && (class == 0 || c < class) {
				class = c
			}
		}
		if class == 0 {
			class = Monitor // a tag we do not know yet
		}
		if err := list.add(class, expr); err != nil {
			return nil, err
		}
	}
	literals := make([]string, len(list.patterns))
	for i, p := range list.patterns {
		literals[i] = p.literal
	}
	list.machine = newAutomaton(literals)
	return list, nil
}

func (l *botList) add(class Class, expr string) error {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return err
	}
	branches := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpAlternate {
		branches = tree.Sub
	}
	for _, b := range branches {
		p := pattern{class: class, literal: longestLiteral(b)}
		if b.Op != syntax.OpLiteral || b.Flags&syntax.FoldCase != 0 {
			if p.expr, err = regexp.Compile(b.String()); err != nil {
				return err
			}
		} else {
			p.word = len(p.literal) <= wordMost
		}
		l.patterns = append(l.patterns, p)
	}
	return nil
}

// longestLiteral returns a text that every match of r contains; "" if it finds none.
func longestLiteral(r *syntax.Regexp) string {
	switch r.Op {
	case syntax.OpLiteral:
		if r.Flags&syntax.FoldCase == 0 {
			return string(r.Rune)
		}
	case syntax.OpConcat, syntax.OpCapture:
		best := ""
		for _, sub := range r.Sub {
			if s := longestLiteral(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	}
	return ""
}

// match returns the class and the name of the program that ua names. Of several
// rules the one of the lowest class counts, then the one that matches first,
// which is where the name of the program stands.
func (l *botList) match(ua []byte) (Class, string) {
	if len(bytes.TrimSpace(ua)) == 0 {
		return Library, "" // every browser sends one
	}
	best, from, to := Person, 0, 0
	l.machine.walk(ua, func(i, end int) {
		p := &l.patterns[i]
		start := end - len(p.literal)
		if best != Person && p.class > best || p.word && !alone(ua, start, end) {
			return
		}
		if p.expr != nil {
			at := p.expr.FindIndex(ua)
			if at == nil {
				return
			}
			start, end = at[0], at[1]
		}
		if best == Person || p.class < best || start < from || start == from && end > to {
			best, from, to = p.class, start, end
		}
	})
	if best == Person && infoURL(ua) {
		// By convention the address of a page about the program; no browser has one.
		return Monitor, botName(ua)
	}
	return best, botName(ua[from:to])
}

// infoURL reports whether ua holds "+http://…" or "+https://…".
func infoURL(ua []byte) bool {
	return bytes.Contains(ua, []byte("+http://")) || bytes.Contains(ua, []byte("+https://"))
}

// alone reports whether ua[start:end] does not continue a word at its start,
// nor at its end if it ends in a letter or digit.
func alone(ua []byte, start, end int) bool {
	if start > 0 && wordByte(ua[start-1]) && wordByte(ua[start]) {
		return false
	}
	return end == len(ua) || !wordByte(ua[end]) || !wordByte(ua[end-1])
}

func wordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

const maxBotName = 40

// botName turns the matched text into a name: printable ASCII up to the first separator.
func botName(found []byte) string {
	found = bytes.Trim(found, " /;()+,:-[]\t")
	end := 0
	for end < len(found) && end < maxBotName && found[end] > ' ' && found[end] < 0x7f && !bytes.ContainsRune([]byte("/;()<>\"'&[]"), rune(found[end])) {
		end++
	}
	if end < len(found) && found[end] == ' ' && end < maxBotName/2 { // "DF Bot"
		for end < len(found) && end < maxBotName && found[end] >= ' ' && found[end] < 0x7f && !bytes.ContainsRune([]byte("/;()<>\"'&[]"), rune(found[end])) {
			end++
		}
	}
	return strings.TrimSpace(string(found[:end]))
}
