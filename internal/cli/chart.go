package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/terselink/terse/client"
)

// Widths of the charts, in characters.
const (
	chartWidth = 60
	barWidth   = 24
	labelWidth = 32
)

var (
	heights = []rune("▁▂▃▄▅▆▇█")
	eighths = []rune("▏▎▍▌▋▊▉█")
)

// sparkline draws one character for each value, the highest for top, which no value exceeds. No click
// is a dot, so that it differs from few.
func sparkline(values []int64, top int64) string {
	var b strings.Builder
	for _, v := range values {
		switch {
		case v <= 0:
			b.WriteRune('·')
		default:
			b.WriteRune(heights[int((v*int64(len(heights))-1)/top)])
		}
	}
	return b.String()
}

// perColumn is how many of n values are added up for at most width columns.
func perColumn(n, width int) int { return max((n+width-1)/width, 1) }

// sumsOf adds up every so many neighbours.
func sumsOf(values []int64, each int) (sums []int64) {
	if each <= 1 {
		return values
	}
	for i, v := range values {
		if i%each == 0 {
			sums = append(sums, 0)
		}
		sums[len(sums)-1] += v
	}
	return sums
}

// timeChart draws clicks over time, on the clock of the zone; "" without any interval.
func timeChart(p style, zone *time.Location, ts *client.Timeseries) string {
	if len(ts.Data) == 0 {
		return ""
	}
	values := make([]int64, len(ts.Data))
	most := 0
	for i, pt := range ts.Data {
		values[i] = pt.Clicks
		if pt.Clicks > values[most] {
			most = i
		}
	}
	before := make([]int64, len(ts.Previous))
	for i, pt := range ts.Previous {
		before[i] = pt.Clicks
	}
	// A column is as long in both lines.
	each := max(perColumn(len(values), chartWidth), perColumn(len(before), chartWidth))
	line, was := sumsOf(values, each), sumsOf(before, each)
	top := int64(0)
	for _, v := range slices.Concat(line, was) {
		top = max(top, v)
	}
	layout := "2006-01-02"
	if ts.Interval == "minute" || ts.Interval == "hour" {
		layout = "2006-01-02 15:04"
	}
	// The server answers in UTC, in which a day of a zone east of it begins on the day before.
	at := func(pt client.Point) string { return pt.T.In(zone).Format(layout) }
	from, to := at(ts.Data[0]), at(ts.Data[len(ts.Data)-1])
	interval := ts.Interval
	if interval == "" {
		interval = "interval"
	}
	per := "one " + interval + " a column"
	if each > 1 {
		per = fmt.Sprintf("%d %ss a column", each, interval)
	}
	text := fmt.Sprintf("  %s\n", p.bar(sparkline(line, top)))
	if len(was) > 0 { // as high for as many clicks
		text += fmt.Sprintf("  %s\n", p.dim(sparkline(was, top)+"  "+at(ts.Previous[0])+" to "+at(ts.Previous[len(ts.Previous)-1])))
	}
	text += fmt.Sprintf("  %s\n", p.dim(from+" to "+to+", "+per))
	if n := values[most]; n > 0 {
		text += fmt.Sprintf("  %s\n", p.dim(fmt.Sprintf("most: %s on %s", count(n), at(ts.Data[most]))))
	}
	return text
}

// bar draws a part of the whole, at least a sliver for anything over 0.
func bar(n, top int64) string {
	if n <= 0 || top <= 0 {
		return ""
	}
	parts := max(int(n*int64(barWidth*len(eighths))/top), 1)
	full, rest := parts/len(eighths), parts%len(eighths)
	s := strings.Repeat(string(eighths[len(eighths)-1]), full)
	if rest > 0 {
		s += string(eighths[rest-1])
	}
	return s
}

// noValue names the clicks that have no value of a dimension.
func noValue(by string) string {
	switch by {
	case "referrer":
		return "(direct or not told)"
	case "country", "region", "city", "device", "os", "browser", "language":
		return "(unknown)"
	}
	return "(none)"
}

// barLine is a line of a chart of bars.
type barLine struct {
	label string
	n     int64
	text  string // n as it is written; "" as a number
	note  string // what follows
}

// rowLabel names a value of a dimension.
func rowLabel(by, value, label string) string {
	switch {
	case label != "":
		return label
	case value == "":
		return noValue(by)
	}
	return value
}

// barChart draws a breakdown in the metric that orders it.
func barChart(p style, by, metric string, d *client.Breakdown) string {
	var lines []barLine
	for _, row := range d.Data {
		line := barLine{label: rowLabel(by, row.Value, row.Label), n: row.Clicks}
		if metric == "visitors" {
			line.n = row.Visitors
		}
		if before := row.Previous; before != nil {
			was := before.Clicks
			if metric == "visitors" {
				was = before.Visitors
			}
			line.note = fmt.Sprintf("%9s  was %s", change(line.n, was), count(was))
		}
		lines = append(lines, line)
	}
	if d.Other > 0 {
		lines = append(lines, barLine{label: "(others)", n: d.Other})
	}
	head := by
	if metric != "" && metric != "clicks" {
		head += ", " + metric
	}
	return bars(p, head, "no clicks", lines, d.Total)
}

// bars draws lines under a heading; total is what their shares are of, at least their sum.
func bars(p style, head, none string, lines []barLine, total int64) string {
	width := utf8.RuneCountInString(head)
	var top, sum int64
	for i, l := range lines {
		l.label = printable(l.label)
		if utf8.RuneCountInString(l.label) > labelWidth {
			l.label = string([]rune(l.label)[:labelWidth-1]) + "…"
		}
		if l.text == "" {
			l.text = count(l.n)
		}
		width = max(width, utf8.RuneCountInString(l.label))
		top = max(top, l.n)
		sum += l.n
		lines[i] = l
	}
	total = max(total, sum)
	var b strings.Builder
	fmt.Fprintf(&b, "  %s\n", p.bold(head))
	if len(lines) == 0 {
		fmt.Fprintf(&b, "  %s\n", p.dim(none))
	}
	for _, l := range lines {
		share := 0.0
		if total > 0 {
			share = 100 * float64(l.n) / float64(total)
		}
		drawn := bar(l.n, top)
		fill := strings.Repeat(" ", barWidth-utf8.RuneCountInString(drawn))
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(l.label))
		fmt.Fprintf(&b, "  %s%s  %s%s %12s %5.1f %%", l.label, pad, p.bar(drawn), fill, l.text, share)
		if l.note != "" {
			b.WriteString(p.dim("  " + l.note))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

var (
	shades   = []rune(" ░▒▓█")
	weekdays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
)

// heatChart draws clicks by weekday and hour: two characters an hour, the darkest for the most.
func heatChart(p style, zone string, h *client.Heatmap) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s\n", p.bold("weekday and hour, "+zone))
	var top int64
	day, hour := 0, 0
	for d, row := range h.Clicks {
		for t, n := range row {
			if n > top {
				top, day, hour = n, d, t
			}
		}
	}
	b.WriteString("       ")
	for t := 0; t < 24; t += 3 {
		fmt.Fprintf(&b, "%-6s", fmt.Sprintf("%02d", t))
	}
	b.WriteString("\n")
	for d, row := range h.Clicks {
		var line strings.Builder
		var sum int64
		for _, n := range row {
			shade := shades[0]
			if n > 0 { // a single click shows
				shade = shades[1+int((n*int64(len(shades)-1)-1)/top)]
			}
			line.WriteRune(shade)
			line.WriteRune(shade)
			sum += n
		}
		fmt.Fprintf(&b, "  %s  %s %12s\n", weekdays[d%7], p.bar(line.String()), count(sum))
	}
	if top > 0 {
		fmt.Fprintf(&b, "  %s\n", p.dim(fmt.Sprintf("most: %s on %s from %02d:00", count(top), weekdays[day%7], hour)))
	}
	return b.String()
}
