package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse/client"
)

// settingFlags are the settings of a link, or of a campaign for all its links: the same flags create and change
// them. An empty value takes a setting away.
type settingFlags struct {
	Title              *string           `help:"Title, for people." placeholder:"TEXT"`
	Tag                []string          `help:"Tag, in place of those that are there; can be repeated." placeholder:"TAG"`
	Expires            *string           `help:"When it ends: a time (2027-01-31T18:00:00Z), a date, or a duration from now (36h, 30d); empty: never." placeholder:"WHEN"`
	Starts             *string           `help:"When it begins, like --expires; empty: at once." placeholder:"WHEN"`
	ExpiredDestination *string           `help:"Where visitors are sent after the end." placeholder:"URL"`
	Status             *int              `help:"HTTP status of the redirect: 301, 302, 303, 307 or 308; 0: that of the domain." placeholder:"STATUS"`
	Metadata           map[string]string `help:"Your own NAME=VALUE, in place of those that are there; can be repeated." placeholder:"NAME=VALUE" mapsep:"none"`
	decisionFlags      `embed:""`
}

// create sets what the flags say in something new.
func (f *settingFlags) create(s *session, n *client.LinkSettings) error {
	p, err := f.change(s, false)
	if err != nil {
		return err
	}
	return create(n, &p)
}

// change returns what the flags say as a change; noTags is the flag that takes all tags away.
func (f *settingFlags) change(s *session, noTags bool) (p client.LinkSettingsPatch, err error) {
	p.Title, p.ExpiredDestination = textChange(f.Title), textChange(f.ExpiredDestination)
	if p.ExpiresAt, err = s.timeChange("expires", f.Expires); err != nil {
		return p, err
	}
	if p.StartsAt, err = s.timeChange("starts", f.Starts); err != nil {
		return p, err
	}
	switch {
	case noTags && len(f.Tag) > 0:
		return p, usage("--tag and --no-tags exclude each other")
	case noTags:
		p.Tags = client.Clear[[]string]()
	case len(f.Tag) > 0:
		p.Tags = client.Set(f.Tag)
	}
	if f.Status != nil {
		p.RedirectStatus = client.Set(*f.Status)
		if *f.Status == 0 {
			p.RedirectStatus = client.Clear[int]()
		}
	}
	if len(f.Metadata) > 0 {
		p.Metadata = client.Set(f.Metadata)
	}
	return p, f.decide(s, &p)
}

// textChange leaves a field alone without the flag and clears it if the flag is empty.
func textChange(flag *string) client.Change[string] {
	switch {
	case flag == nil:
		return client.Change[string]{}
	case *flag == "":
		return client.Clear[string]()
	}
	return client.Set(*flag)
}

func (s *session) timeChange(name string, flag *string) (client.Change[time.Time], error) {
	if flag == nil {
		return client.Change[time.Time]{}, nil
	}
	t, err := s.when(name, *flag)
	if err != nil || t.IsZero() {
		return client.Clear[time.Time](), err
	}
	return client.Set(t), nil
}

// when reads a point in time; "" is the zero time.
func (s *session) when(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, ok := duration(text); ok {
		return s.Now().Add(d).UTC().Truncate(time.Second), nil
	}
	return time.Time{}, usage("--%s: %q is not a time such as 2027-01-31T18:00:00Z, a date such as 2027-01-31 or a duration such as 36h or 30d", flag, text)
}

// duration reads what time.ParseDuration does, and days and weeks. Only a positive one counts.
func duration(text string) (time.Duration, bool) {
	unit := time.Duration(0)
	switch {
	case strings.HasSuffix(text, "d"):
		unit = 24 * time.Hour
	case strings.HasSuffix(text, "w"):
		unit = 7 * 24 * time.Hour
	}
	if unit != 0 {
		n, err := strconv.Atoi(text[:len(text)-1])
		return time.Duration(n) * unit, err == nil && n > 0 && n < 100_000
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}

// usage returns an error of the command line.
func usage(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}
