package seed

// country is where people are: how many of them, and the hours that their clock is ahead of UTC.
type country struct {
	code, language, region, city string
	weight                       int
	ahead                        int
}

var countries = []country{
	{"US", "en-US,en;q=0.9", "US-NY", "New York", 28, -5},
	{"DE", "de-DE,de;q=0.9,en;q=0.7", "DE-BE", "Berlin", 18, 1},
	{"GB", "en-GB,en;q=0.9", "GB-ENG", "London", 10, 0},
	{"IN", "en-IN,hi;q=0.8", "IN-MH", "Mumbai", 9, 5},
	{"FR", "fr-FR,fr;q=0.9", "FR-IDF", "Paris", 7, 1},
	{"BR", "pt-BR,pt;q=0.9", "BR-SP", "São Paulo", 6, -3},
	{"JP", "ja-JP,ja;q=0.9", "JP-13", "Tokyo", 5, 9},
	{"AT", "de-AT,de;q=0.9", "AT-9", "Vienna", 4, 1},
	{"ES", "es-ES,es;q=0.9", "ES-MD", "Madrid", 4, 1},
	{"CH", "de-CH,de;q=0.9", "CH-ZH", "Zurich", 3, 1},
	{"AU", "en-AU,en;q=0.9", "AU-NSW", "Sydney", 3, 10},
	{"NL", "nl-NL,nl;q=0.9", "NL-NH", "Amsterdam", 3, 1},
}

// hours is how busy an hour of the local day is, days a day of the week from Monday.
var (
	hours = [24]int{18, 10, 6, 4, 4, 7, 18, 38, 58, 70, 76, 80, 88, 84, 76, 74, 76, 82, 92, 104, 112, 100, 70, 38}
	days  = [7]int{104, 108, 106, 104, 100, 84, 78}
)

// agents are the browsers of people, the share of each, and whether in-app browsers tell a source.
var agents = []struct {
	weight          int
	agent, platform string
}{
	{26, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", ""},
	{24, "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36", `"Android"`},
	{16, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36", `"Windows"`},
	{7, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36", `"macOS"`},
	{6, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", ""},
	{5, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0", ""},
	{5, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0", `"Windows"`},
	{5, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 398.0.0.33.90 (iPhone15,3; iOS 18_5; de_DE; de; scale=3.00; 1290x2796)", ""},
	{3, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/520.0.0.38.101;FBBV/756351453;FBDV/iPhone14,5;FBMD/iPhone;FBSN/iOS;FBSV/18.4]", ""},
	{2, "Mozilla/5.0 (Linux; Android 15; SM-S926B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36", `"Android"`},
	{1, "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1", ""},
}

// bots are programs that visit links.
var bots = []string{
	"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
	"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
	"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
	"Twitterbot/1.0",
	"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
	"TelegramBot (like TwitterBot)",
	"WhatsApp/2.23.20.0",
	"curl/8.9.1",
	"python-requests/2.32.3",
	"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
}

// referrers are where people come from; "" is direct, as most app traffic is.
var referrers = []struct {
	weight int
	url    string
}{
	{52, ""}, {11, "https://www.google.com/"}, {7, "https://l.instagram.com/"}, {6, "https://m.facebook.com/"}, {6, "https://t.co/abc"}, {4, "https://www.linkedin.com/feed/"},
	{4, "https://news.ycombinator.com/"}, {3, "https://www.reddit.com/r/golang/"}, {3, "android-app://com.google.android.gm/"}, {2, "https://www.bing.com/"}, {2, "https://duckduckgo.com/"},
}

// queries are tracking parameters of the visit.
var queries = []struct {
	weight int
	query  string
}{
	{70, ""}, {8, "utm_source=newsletter&utm_medium=email&utm_campaign=autumn"}, {7, "utm_source=sms&utm_medium=sms&utm_campaign=reminder"},
	{6, "utm_source=instagram&utm_medium=social&utm_campaign=launch&utm_content=story"}, {5, "utm_source=google&utm_medium=cpc&utm_campaign=brand&utm_term=shoes"}, {4, "ref=partner"},
}

// tagSets are the tags of links and campaigns.
var tagSets = [][]string{nil, nil, {"sms"}, {"email"}, {"social"}, {"print", "qr"}, {"vip"}, {"sms", "reminder"}}

// unknown are codes that scanners and mistyping bring.
var unknown = []string{"wp-login.php", ".env", "favicon.ico", "admin", "xmlrpc.php", "abc123", "sumer"}
