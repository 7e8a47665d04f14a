package links

import (
	"errors"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// TestRuleNames: rules with a system or browser that no visit has are refused where somebody sets them, and stay where they are
// stored.
func TestRuleNames(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ruled := func(kind, value string) []terse.Rule {
		return []terse.Rule{{Conditions: []terse.Condition{{Type: "country", Values: []string{"DE"}}, {Type: kind, Values: []string{"Linux", value}}}, Destination: "https://example.com/x"}}
	}
	browsers := ruled("browser", "Firefocks")
	browsers[0].Conditions[1].Values[0] = "samsung internet"
	good := ruled("os", "ios")
	l, _, err := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Rules: good}, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.CreateCampaign(t.Context(), actor, NewCampaign{Name: "c", Destination: "https://example.com/{a}", Rules: good}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]terse.Rule{ruled("os", "Windoze"), browsers} {
		_, _, err := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Rules: bad}, CreateOptions{})
		_, perr := s.Update(t.Context(), actor, l.Number, Patch{SettingsPatch: SettingsPatch{Rules: &bad}}, 0)
		_, cerr := s.CreateCampaign(t.Context(), actor, NewCampaign{Name: "c", Destination: "https://example.com/{a}", Rules: bad}, nil)
		_, uerr := s.UpdateCampaign(t.Context(), actor, c.ID, CampaignPatch{SettingsPatch: SettingsPatch{Rules: &bad}}, 0)
		for what, err := range map[string]error{"create": err, "update": perr, "campaign": cerr, "campaign update": uerr} {
			e, ok := errors.AsType[*terse.Error](err)
			if !ok || e.Code != terse.CodeInvalid || e.Field != "rules[0].conditions[1].values[1]" || !strings.Contains(e.Message, " is one of ") {
				t.Errorf("%s of %v: %v", what, bad[0].Conditions[1].Values, err)
			}
		}
		// One that was stored before does not keep other things from being changed.
		stored, err := s.Get(t.Context(), actor, l.Number)
		if err != nil {
			t.Fatal(err)
		}
		settings := *stored.Settings
		settings.Rules = bad
		title := "changed"
		old := stored
		old.Settings = &settings
		if err := s.apply(&old, actor, &Patch{SettingsPatch: SettingsPatch{Title: &title}}); err != nil || old.Settings.Title != title || len(old.Settings.Rules) != 1 {
			t.Errorf("a change of the title of a link with stored rules: %v, %+v", err, old.Settings)
		}
	}
}
