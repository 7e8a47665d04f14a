package agent

// token maps a piece of a User-Agent to a name; the first that is found wins.
type token struct{ token, name string }

// browserTokens come before the general library: they are what it does not
// know, or takes for Chrome or Safari, which nearly all of them also claim to be.
var browserTokens = []token{
	{"Instagram ", "Instagram"},
	{"Barcelona ", "Threads"},
	{"musical_ly", "TikTok"}, {"trill_", "TikTok"}, {"BytedanceWebview", "TikTok"}, {"TikTok ", "TikTok"},
	{"FBAN/Messenger", "Messenger"}, {"FB_IAB/MESSENGER", "Messenger"}, {"FB_IAB/Orca", "Messenger"},
	{"FBAV/", "Facebook"}, {"FBAN/", "Facebook"}, {"FB_IAB/", "Facebook"}, {"MetaIAB Facebook", "Facebook"},
	{"Snapchat/", "Snapchat"}, {"Snapchat ", "Snapchat"},
	{"LinkedInApp", "LinkedIn"},
	{"MicroMessenger/", "WeChat"},
	{"KAKAOTALK ", "KakaoTalk"}, {"KAKAOTALK/", "KakaoTalk"},
	{" Line/", "Line"},
	{"[Pinterest/", "Pinterest"},
	{"Twitter for iPhone/", "X"}, {"Twitter for iPhone", "X"}, {"TwitterAndroid", "X"},
	{"GSA/", "Google App"},
	{"DuckDuckGo/", "DuckDuckGo"}, {"Ddg/", "DuckDuckGo"},
	{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"}, {"Edge/", "Edge"},
	{"OPX/", "Opera GX"}, {"OPRGX/", "Opera GX"},
	{"Opera Mini/", "Opera Mini"}, {"OPR/", "Opera"}, {"OPT/", "Opera"}, {"OPiOS/", "Opera"},
	{"YaBrowser/", "Yandex"}, {"YaApp_", "Yandex"}, {"YaSearchBrowser", "Yandex"},
	{"SamsungBrowser/", "Samsung Internet"},
	{"UCBrowser/", "UC Browser"}, {"UCWEB", "UC Browser"},
	{"MQQBrowser/", "QQ Browser"}, {"QQBrowser/", "QQ Browser"},
	{"baiduboxapp/", "Baidu"}, {"BIDUBrowser/", "Baidu"},
	{"HuaweiBrowser/", "Huawei Browser"},
	{"MiuiBrowser/", "Miui Browser"},
	{"VivoBrowser/", "Vivo Browser"}, {"HeyTapBrowser/", "HeyTap"},
	{"SogouMobileBrowser/", "Sogou"}, {"MetaSr", "Sogou"},
	{"coc_coc_browser/", "Coc Coc"},
	{"Whale/", "Whale"}, {"NAVER(inapp", "Naver"},
	{"Vivaldi/", "Vivaldi"},
	{"Brave/", "Brave"},
	{"Silk/", "Silk"},
	{"Puffin/", "Puffin"},
	{"Ecosia ", "Ecosia"},
	{"PaleMoon/", "Pale Moon"}, {"Waterfox/", "Waterfox"}, {"SeaMonkey/", "SeaMonkey"},
	{"Focus/", "Firefox Focus"}, {"Klar/", "Firefox Focus"},
	{"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"},
	{"Electron/", "Electron"},
	{"HeadlessChrome/", "Headless Chrome"},
	{"CriOS/", "Chrome"},
	{"; wv)", "Android WebView"},
	{"Chromium/", "Chromium"},
}

// libraryBrowsers maps the names of the general library to ours. What is not
// here is not a browser that we know.
var libraryBrowsers = map[string]string{
	"Chrome": "Chrome", "Safari": "Safari", "Firefox": "Firefox", "Edge": "Edge", "Opera": "Opera",
	"Opera Mini": "Opera Mini", "Opera Touch": "Opera", "Internet Explorer": "Internet Explorer",
	"Android browser": "Android Browser", "Samsung Browser": "Samsung Internet", "Vivaldi": "Vivaldi",
	"BlackBerry": "BlackBerry", "NetFront": "NetFront", "Miui Browser": "Miui Browser", "Huawei Browser": "Huawei Browser",
	"Facebook App": "Facebook", "Instagram App": "Instagram", "TikTok App": "TikTok",
}

// appTokens name the source of clicks that carry no referrer. The names are
// those of internal/clicks/data/sources.txt.
var appTokens = []token{
	{"Instagram ", "Instagram"},
	{"Barcelona ", "Threads"},
	{"musical_ly", "TikTok"}, {"trill_", "TikTok"}, {"BytedanceWebview", "TikTok"}, {"TikTok ", "TikTok"},
	{"FBAN/Messenger", "Messenger"}, {"FB_IAB/MESSENGER", "Messenger"}, {"FB_IAB/Orca", "Messenger"},
	{"FBAN/", "Facebook"}, {"FBAV/", "Facebook"}, {"FB_IAB/", "Facebook"}, {"MetaIAB Facebook", "Facebook"},
	{"Snapchat", "Snapchat"},
	{"LinkedInApp", "LinkedIn"},
	{"MicroMessenger", "WeChat"},
	{"KAKAOTALK", "KakaoTalk"},
	{" Line/", "Line"},
	{"Pinterest/", "Pinterest"},
	{"Twitter for iPhone", "X"}, {"Twitter for iPad", "X"}, {"TwitterAndroid", "X"},
	{"WhatsApp/", "WhatsApp"},
	{"Telegram-", "Telegram"}, {"Telegram/", "Telegram"}, {"TelegramBot", "Telegram"},
	{"Slack_SSB", "Slack"}, {"Slack/", "Slack"},
	{"Teams/", "Microsoft Teams"},
	{"Discord/", "Discord"},
	{"Reddit/", "Reddit"}, {"RedditAndroid", "Reddit"},
	{"Zalo ", "Zalo"}, {"Zalo/", "Zalo"},
	{"Viber", "Viber"},
	{"Weibo (", "Weibo"},
	{"NAVER(inapp", "Naver"},
	{"baiduboxapp", "Baidu"},
	{"YahooMobile", "Yahoo"},
	{"GSA/", "Google"},
}

var tvTokens = []string{
	"SMART-TV", "SmartTV", "Smart-TV", "SMARTTV", "GoogleTV", "Google TV", "Android TV", "AndroidTV", "AppleTV", "Apple TV",
	"HbbTV", "NetCast", "Web0S", "webOS.TV", "BRAVIA", "CrKey", "Roku", "AFTB", "AFTM", "AFTS", "AFTT", "AFTK", "AFTN", "Tizen TV",
	"PlayStation", "PLAYSTATION", "Xbox", "Nintendo",
}
