package cli

import (
	"fmt"
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

// usage returns an error of the command line.
func usage(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}
