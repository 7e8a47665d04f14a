package pgstore

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/terselink/terse"
)

// columns are what scanLink reads, of a table called l.
const columns = `l.number, l.workspace_id, coalesce(l.campaign_id, 0), l.version, l.created_at, l.updated_at, l.expires_at,
	coalesce(l.code, ''), l.destination, coalesce(l.field_values, ''), coalesce(l.external_id, ''), l.status, l.by_code,
	l.default_expiry, coalesce(l.redirect_status, 0), l.settings::text`

// scanLink reads a row of columns, and whatever follows them into more.
func scanLink(rows pgx.Row, l *terse.Link, more ...any) error {
	var (
		number, campaign, version          int64
		workspace                          int32
		redirect, status                   int16
		createdAt                          time.Time
		updatedAt, expiresAt               pgtype.Timestamptz
		settings                           *string
		code, destination, values, foreign string
	)
	*l = terse.Link{}
	into := append([]any{&number, &workspace, &campaign, &version, &createdAt, &updatedAt, &expiresAt, &code, &destination, &values,
		&foreign, &status, &l.ByCode, &l.DefaultExpiry, &redirect, &settings}, more...)
	if err := rows.Scan(into...); err != nil {
		return err
	}
	l.Number, l.Workspace, l.Campaign, l.Version = terse.LinkNumber(number), terse.WorkspaceID(workspace), terse.CampaignID(campaign), uint64(version)
	l.CreatedAt = terse.Millis(createdAt.UnixMilli())
	l.UpdatedAt = l.CreatedAt
	if updatedAt.Valid {
		l.UpdatedAt = terse.Millis(updatedAt.Time.UnixMilli())
	}
	if expiresAt.Valid {
		l.ExpiresAt = terse.Millis(expiresAt.Time.UnixMilli())
	}
	l.Code, l.Destination, l.Values, l.ExternalID = code, destination, values, foreign
	l.Status, l.RedirectStatus = terse.Status(status), uint16(redirect)
	if settings != nil {
		l.Settings = &terse.LinkSettings{}
		d := json.NewDecoder(strings.NewReader(*settings))
		// To leave out a setting that is not known could send people where the owner did not want them.
		d.DisallowUnknownFields()
		if err := d.Decode(l.Settings); err != nil {
			return fmt.Errorf("settings of link %s: %w", l.Number, err)
		}
	}
	return nil
}

// destinationKey is the key of a plain link in the index by destination. Others have none.
func destinationKey(w terse.WorkspaceID, d terse.DomainID, destination string) int32 {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(w))
	binary.BigEndian.PutUint32(b[4:], uint32(d))
	h := xxhash.New()
	_, _ = h.Write(b[:])
	_, _ = h.WriteString(destination)
	return int32(h.Sum64())
}

// copyColumns are the columns that appendLink writes, in its order.
const copyColumns = `number, position, version, created_at, updated_at, expires_at, campaign_id, workspace_id, destination_key,
	redirect_status, status, by_code, default_expiry, code, destination, field_values, external_id, settings`

const copyFields = 18

// copyHeader begins a binary COPY: signature, flags, length of the extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// appendLink appends the row of a link in the format of a binary COPY. Hot path: bulk
// inserts spend most of their own time here; 0 allocs/op but for settings, see TestAppendLinkAllocs.
func appendLink(dst []byte, l *terse.Link, position int64) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, copyFields)
	dst = appendInt8(dst, int64(l.Number))
	dst = appendInt8(dst, position)
	dst = appendInt8(dst, int64(l.Version))
	dst = appendTime(dst, l.CreatedAt)
	if l.UpdatedAt == l.CreatedAt {
		dst = appendNull(dst)
	} else {
		dst = appendTime(dst, l.UpdatedAt)
	}
	if l.ExpiresAt == 0 {
		dst = appendNull(dst)
	} else {
		dst = appendTime(dst, l.ExpiresAt)
	}
	if l.Campaign == 0 {
		dst = appendNull(dst)
	} else {
		dst = appendInt8(dst, int64(l.Campaign))
	}
	dst = appendInt4(dst, int32(l.Workspace))
	if l.Plain() {
		dst = appendInt4(dst, destinationKey(l.Workspace, l.Number.Domain(), l.Destination))
	} else {
		dst = appendNull(dst)
	}
	if l.RedirectStatus == 0 {
		dst = appendNull(dst)
	} else {
		dst = appendInt2(dst, int16(l.RedirectStatus))
	}
	dst = appendInt2(dst, int16(l.Status))
	dst = appendBool(dst, l.ByCode)
	dst = appendBool(dst, l.DefaultExpiry)
	if l.Named() {
		dst = appendText(dst, l.Code)
	} else {
		dst = appendNull(dst)
	}
	dst = appendText(dst, l.Destination)
	dst = appendOptional(dst, l.Values)
	dst = appendOptional(dst, l.ExternalID)
	settings, err := encodeSettings(l.Settings)
	if err != nil {
		return dst, err
	}
	if settings == nil {
		return appendNull(dst), nil
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(settings)+1))
	dst = append(dst, 1) // the version of the binary form of jsonb
	return append(dst, settings...), nil
}

// encodeSettings returns the JSON of settings, nil if there are none.
func encodeSettings(s *terse.LinkSettings) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	if string(b) == "{}" {
		return nil, nil
	}
	return b, nil
}

func appendNull(dst []byte) []byte { return append(dst, 0xff, 0xff, 0xff, 0xff) }

func appendInt8(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 8), uint64(v))
}

func appendInt4(dst []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(v))
}

func appendInt2(dst []byte, v int16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, 0, 0, 0, 2), uint16(v))
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 0, 0, 0, 1, 1)
	}
	return append(dst, 0, 0, 0, 1, 0)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

func appendOptional(dst []byte, s string) []byte {
	if s == "" {
		return appendNull(dst)
	}
	return appendText(dst, s)
}

// The server counts microseconds from 2000-01-01.
const epoch2000 = 946_684_800_000

func appendTime(dst []byte, t terse.Millis) []byte { return appendInt8(dst, (int64(t)-epoch2000)*1000) }

// timeOf is a time for a parameter; 0 becomes null.
func timeOf(t terse.Millis) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: time.UnixMilli(int64(t)).UTC(), Valid: t != 0}
}

// maxMillis is the largest time that the server can hold, in the year 294246.
const maxMillis = terse.Millis(9_200_000_000_000_000)

// checkLink refuses what no caller may send, whatever the store holds.
func checkLink(l *terse.Link) error {
	for _, f := range []struct {
		name string
		t    terse.Millis
	}{{"created_at", l.CreatedAt}, {"updated_at", l.UpdatedAt}, {"expires_at", l.ExpiresAt}} {
		if f.t > maxMillis || f.t < 0 {
			return terse.Invalid(f.name, "is no time that can be stored")
		}
	}
	if l.Version > math.MaxInt64 || l.Campaign > math.MaxInt64 || l.Workspace > math.MaxInt32 {
		return terse.Invalid("version", "version, campaign and workspace are below 2^63, 2^63 and 2^31")
	}
	return nil
}
