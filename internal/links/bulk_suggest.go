package links

import (
	"fmt"
	"strings"
)

// otherNames are what other tools call the fields of a link, without case, spaces and signs.
var otherNames = map[string]string{
	"url": "destination", "link": "destination", "longurl": "destination", "targeturl": "destination", "target": "destination",
	"originalurl": "destination", "href": "destination", "website": "destination", "webaddress": "destination", "to": "destination", "redirect": "destination",
	"destinationurl": "destination", "longlink": "destination",
	"alias": "code", "slug": "code", "short": "code", "keyword": "code", "backhalf": "code", "customcode": "code", "path": "code", "shortcode": "code", "customslug": "code",
	"id": "external_id", "ref": "external_id", "reference": "external_id", "key": "external_id", "customerid": "external_id", "userid": "external_id", "rowid": "external_id",
	"name": "title", "description": "title", "label": "title",
	"tag": "tags", "labels": "tags", "host": "domain", "hostname": "domain", "shortdomain": "domain",
	"expiry": "expires_at", "expires": "expires_at", "expiration": "expires_at", "expirationdate": "expires_at", "validuntil": "expires_at", "expiresat": "expires_at",
	"starts": "starts_at", "validsince": "starts_at", "validfrom": "starts_at", "status": "redirect_status", "redirecttype": "redirect_status",
	"pass": "password", "maxvisits": "max_clicks", "clicklimit": "max_clicks", "meta": "metadata",
}

// suggestion says which field a name that is none probably means; "" if nothing is near.
func suggestion(name string, fields []string) string {
	if f := suggest(name, fields); f != "" {
		return fmt.Sprintf("; did you mean %s?", f)
	}
	return ""
}

func suggest(name string, fields []string) string {
	plain := plainName(name)
	if plain == "" || len(plain) > 64 {
		return ""
	}
	other := otherNames[plain]
	best, least := "", 3
	for _, f := range fields {
		if f == other {
			return f
		}
		p := plainName(f)
		// A short name is all different after two edits.
		if d := distance(plain, p); d < least && d*3 <= len(p) {
			best, least = f, d
		}
	}
	return best
}

// plainName takes away what people write in different ways.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, name)
}

// distance is how many letters must be added, removed, replaced or swapped with their
// neighbour to make one word of the other (optimal string alignment).
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
