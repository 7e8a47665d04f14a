package clicks

import "testing"

// TestTail: a tail sees what is recorded after it began, and nothing before.
func TestTail(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	r := open(t, o)
	defer r.Close()
	all := makeClicks(300, 1)
	put := func(part []Click) {
		for i := range part {
			if !r.Capture(uint32(i), &part[i]) {
				t.Fatal("not captured")
			}
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(all[:200])
	tail, err := OpenTail(o.Dir, r.Position(), EnrichSettings{})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	count := func() (n int) {
		got, err := tail.Next(t.Context(), 1000, func(ev *Event) error {
			n++
			if ev.Repeat || ev.Domain == "" {
				t.Errorf("%+v", ev)
			}
			return nil
		})
		if err != nil || got != n {
			t.Fatalf("%d, %d, %v", got, n, err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d clicks of the past", n)
	}
	put(all[200:])
	if err := tail.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 100 {
		t.Errorf("%d clicks, want 100", n)
	}
}

// TestPositionAtStart: before the first group the position is that of the boot.
func TestPositionAtStart(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	r := open(t, o)
	defer r.Close()
	if p := r.Position(); p.Boot != r.Boot() {
		t.Errorf("%+v", p)
	}
	tail, err := OpenTail(o.Dir, r.Position(), EnrichSettings{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Close(); err != nil {
		t.Error(err)
	}
}
