package links

import "github.com/terselink/terse"

// arrayCutter finds the elements of one JSON array. It only tells where an element
// ends; whether it is a link is for the parser. An element that is too long becomes a row of
// maxRow+1 bytes, which is refused as too long, and is skipped to its end; one that nests too deep
// is refused by the parser.
type arrayCutter struct {
	rows     [][2]int32
	pos      int // next byte to look at
	start    int // where the current element starts; -1 between elements, and in the rest of one that was too long
	depth    int // 0: before or after the array, 1: between elements
	inString bool
	skipping bool // in the rest of an element that was too long
	opened   bool
	closed   bool
	comma    bool // a comma was the last thing between elements
	whole    int  // everything before it is in rows or needed no more
}

func (c *arrayCutter) shift(n int) {
	c.pos -= n
	if c.start >= 0 {
		c.start -= n
	}
	c.whole = 0
	c.rows = c.rows[:0]
}

func (c *arrayCutter) fault(message string) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Field: "body", Message: message}
}

func (c *arrayCutter) cut(buf []byte, eof bool) (int, [][2]int32, error) {
	if !c.opened {
		c.start = -1
	}
	for ; c.pos < len(buf) && c.whole < batchBytes; c.pos++ {
		ch := buf[c.pos]
		if c.inString {
			switch ch {
			case '\\':
				if c.pos+1 >= len(buf) {
					return c.need(buf, eof)
				}
				c.pos++
			case '"':
				c.inString = false
			}
			continue
		}
		space := ch == ' ' || ch == '\n' || ch == '\r' || ch == '\t'
		switch {
		case c.closed || !c.opened:
			if space {
				continue
			}
			if c.closed || ch != '[' {
				return c.whole, c.rows, c.fault("the body is not one JSON array")
			}
			c.opened, c.depth = true, 1
		case c.depth == 1 && (ch == ',' || ch == ']'):
			if c.start < 0 && !c.skipping && (ch == ',' || c.comma) {
				return c.whole, c.rows, c.fault("an element of the array is missing")
			}
			if c.start >= 0 {
				c.rows = append(c.rows, [2]int32{int32(c.start), int32(c.pos)})
			}
			c.start, c.skipping, c.comma = -1, false, ch == ','
			c.whole = c.pos + 1
			if ch == ']' {
				c.closed, c.depth = true, 0
			}
		default:
			if c.start < 0 && !c.skipping {
				if space {
					continue
				}
				c.start, c.comma = c.pos, false
			}
			switch ch {
			case '"':
				c.inString = true
			case '{', '[':
				c.depth++
			case '}', ']':
				if c.depth--; c.depth < 1 {
					return c.whole, c.rows, c.fault("a bracket closes nothing")
				}
			}
		}
	}
	return c.need(buf, eof)
}

// need returns what is whole, or at the end of the body says that it was cut.
func (c *arrayCutter) need(buf []byte, eof bool) (int, [][2]int32, error) {
	if c.start >= 0 && c.pos-c.start > maxRow {
		c.rows = append(c.rows, [2]int32{int32(c.start), int32(c.start + maxRow + 1)})
		c.start, c.skipping = -1, true
	}
	if c.skipping {
		c.whole = c.pos
	}
	if eof && !c.closed && c.pos >= len(buf)-1 {
		return c.whole, c.rows, &terse.Error{Code: terse.CodeInvalid, Reason: "body_cut", Field: "body", Message: "the JSON array has no end"}
	}
	if c.closed && c.pos == len(buf) {
		c.whole = len(buf)
	}
	return c.whole, c.rows, nil
}
