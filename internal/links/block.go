package links

import "github.com/terselink/terse"

// Right says whether somebody may block links for abuse.
type Right uint8

// The rights.
const (
	MayNotBlock Right = iota
	MayBlock          // links of the workspace, and lift what the workspace blocked
	MayBlockAny       // the operator of the instance: and lift every block
)

// MaxReason is the longest reason of a block in bytes.
const MaxReason = 500

// setStatus changes the status of a link. Who may not block may not lift a block, either: a link that was
// stopped for abuse is not started again by the key that made it.
func (a *Actor) setStatus(l *terse.Link, set *terse.LinkSettings, status *terse.Status, reason *string) error {
	if reason != nil {
		if status == nil || *status != terse.StatusBlocked {
			return terse.Invalid("blocked_reason", "a reason goes with the status blocked")
		}
		if err := checkText("blocked_reason", *reason, MaxReason); err != nil {
			return err
		}
	}
	if status == nil {
		return nil
	}
	if *status == terse.StatusBlocked && a.Block == MayNotBlock {
		return errMayNotBlock
	}
	if err := a.mayLift(l.Status, set.Block); err != nil {
		return err
	}
	l.Status, set.Block = *status, nil
	if *status == terse.StatusBlocked {
		set.Block = &terse.Block{By: a.By, Owner: a.Block == MayBlockAny}
		if reason != nil {
			set.Block.Reason = *reason
		}
	}
	return nil
}

var (
	errMayNotBlock = &terse.Error{Code: terse.CodeForbidden, Reason: "link_blocked", Field: "status", Message: "blocking a link, and lifting a block, needs the scope links:block"}
	errOwnerBlock  = &terse.Error{Code: terse.CodeForbidden, Reason: "link_blocked", Field: "status", Message: "the operator blocked the link: only the owner key lifts that"}
)

// mayLift returns an error of code forbidden if a link has a block that the actor may not lift. Deleting
// lifts, too: the alias becomes free, and could lead to the same place again.
func (a *Actor) mayLift(status terse.Status, b *terse.Block) error {
	switch {
	case status != terse.StatusBlocked:
		return nil
	case a.Block == MayNotBlock:
		return errMayNotBlock
	case b != nil && b.Owner && a.Block != MayBlockAny:
		return errOwnerBlock
	}
	return nil
}
