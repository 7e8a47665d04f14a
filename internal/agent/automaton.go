package agent

// automaton is an Aho-Corasick machine that finds every literal of a set in one
// pass. It is our own because the library at hand keeps 2 KiB per state, 35 MB
// for this list; with byte classes and 16-bit states it is about 3 MB, and
// having all transitions filled in it never follows failure links.
type automaton struct {
	class  [256]uint8 // of a byte; 0: in no literal
	width  int
	next   []uint16 // state*width + class -> state
	output [][]int32
	suffix []uint16 // nearest state on the failure path with output; 0: none
	empty  []int32  // literals of no bytes: they match everything
}

// newAutomaton builds the machine. It panics above 65,535 states, three times
// what the list of crawlers needs.
func newAutomaton(literals []string) *automaton {
	a := &automaton{width: 1}
	for _, s := range literals {
		for i := range len(s) {
			if a.class[s[i]] == 0 {
				a.class[s[i]] = uint8(a.width)
				a.width++
			}
		}
	}
	a.state()
	for i, s := range literals {
		if s == "" {
			a.empty = append(a.empty, int32(i))
			continue
		}
		at := uint16(0)
		for j := range len(s) {
			k := int(at)*a.width + int(a.class[s[j]])
			if a.next[k] == 0 {
				a.next[k] = a.state()
			}
			at = a.next[k]
		}
		a.output[at] = append(a.output[at], int32(i))
	}
	a.link()
	return a
}

func (a *automaton) state() uint16 {
	n := len(a.output)
	if n > 1<<16-1 {
		panic("agent: too many literals")
	}
	a.next = append(a.next, make([]uint16, a.width)...)
	a.output = append(a.output, nil)
	a.suffix = append(a.suffix, 0)
	return uint16(n)
}

// link fills in the transitions of failures, breadth first: those of a state's
// failure state are complete before it is reached.
func (a *automaton) link() {
	fail := make([]uint16, len(a.output))
	var queue []uint16
	for c := range a.width {
		if s := a.next[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		f := fail[s]
		if len(a.output[f]) > 0 {
			a.suffix[s] = f
		} else {
			a.suffix[s] = a.suffix[f]
		}
		for c := range a.width {
			k := int(s)*a.width + c
			via := a.next[int(f)*a.width+c]
			if a.next[k] == 0 {
				a.next[k] = via
				continue
			}
			fail[a.next[k]] = via
			queue = append(queue, a.next[k])
		}
	}
}

// walk calls found for every literal in text with the offset after it.
func (a *automaton) walk(text []byte, found func(literal, end int)) {
	for _, i := range a.empty {
		found(int(i), 0)
	}
	s := uint16(0)
	for i, b := range text {
		s = a.next[int(s)*a.width+int(a.class[b])]
		for t := s; t != 0; t = a.suffix[t] {
			for _, l := range a.output[t] {
				found(int(l), i+1)
			}
		}
	}
}
