package cli

import (
	"fmt"
	"strings"
)

// minorUnits is how many digits of an amount stand behind the point, of the currencies in which these are not two. Source: ISO 4217,
// list one (the XML "list-one" of SIX, its maintenance agency), column CcyMnrUnts. What has none there, such as gold, is
// counted in whole units. CLDR, which golang.org/x/text/currency follows, differs for a dozen of them: it says what people
// write, not in what units a payment is counted.
var minorUnits = func() map[string]int {
	m := map[string]int{}
	for digits, codes := range map[int]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX",
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for code := range strings.FieldsSeq(codes) {
			m[code] = digits
		}
	}
	return m
}()

// money writes an amount that is counted in minor units of a currency.
func money(n int64, currency string) string {
	digits, ok := minorUnits[currency]
	if !ok {
		digits = 2
	}
	whole, sign := uint64(n), ""
	if n < 0 {
		whole, sign = -whole, "-"
	}
	unit := uint64(1)
	for range digits {
		unit *= 10
	}
	text := sign + count(whole/unit)
	if digits > 0 {
		text += fmt.Sprintf(".%0*d", digits, whole%unit)
	}
	return text
}
