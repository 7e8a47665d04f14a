package agent

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// people are User-Agents of browsers and apps as they are in use. None may ever
// count as a bot.
var people = []struct {
	ua   string
	want Info
}{
	// Desktop.
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Edge", BrowserVersion: "131"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Firefox", BrowserVersion: "133"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36 OPR/115.0.0.0", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Opera", BrowserVersion: "115"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 YaBrowser/24.10.0.0 Safari/537.36", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Yandex", BrowserVersion: "24"}},
	{"Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko", Info{Device: "desktop", OS: "Windows", OSVersion: "7", Browser: "Internet Explorer", BrowserVersion: "11"}},
	{"Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; WOW64; Trident/4.0; SLCC2; .NET CLR 2.0.50727; Media Center PC 6.0; InfoPath.2)", Info{Device: "desktop", OS: "Windows", OSVersion: "7", Browser: "Internet Explorer"}},
	{"Mozilla/5.0 (Windows NT 6.3; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36", Info{Device: "desktop", OS: "Windows", OSVersion: "8", Browser: "Chrome", BrowserVersion: "109"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/116.0.5845.97 Safari/537.36 SE 2.X MetaSr 1.0", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Sogou"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) coc_coc_browser/126.0.164 Chrome/120.0.6099.164 Safari/537.36", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Coc Coc", BrowserVersion: "126"}},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15", Info{Device: "desktop", OS: "macOS", Browser: "Safari", BrowserVersion: "18"}},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", Info{Device: "desktop", OS: "macOS", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:132.0) Gecko/20100101 Firefox/132.0", Info{Device: "desktop", OS: "macOS", Browser: "Firefox", BrowserVersion: "132"}},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15 Ddg/17.6", Info{Device: "desktop", OS: "macOS", Browser: "DuckDuckGo", BrowserVersion: "17"}},
	{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", Info{Device: "desktop", OS: "Linux", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", Info{Device: "desktop", OS: "Linux", Browser: "Firefox", BrowserVersion: "133"}},
	{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 Vivaldi/6.5.3206.39", Info{Device: "desktop", OS: "Linux", Browser: "Vivaldi", BrowserVersion: "6"}},
	{"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", Info{Device: "desktop", OS: "ChromeOS", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (X11; FreeBSD amd64; rv:128.0) Gecko/20100101 Firefox/128.0", Info{Device: "desktop", OS: "FreeBSD", Browser: "Firefox", BrowserVersion: "128"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Slack/4.41.98 Chrome/130.0.6723.118 Electron/33.2.0 Safari/537.36 Sonic Slack_SSB/4.41.98", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Electron", BrowserVersion: "33", App: "Slack"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) discord/1.0.9173 Chrome/128.0.6613.186 Electron/32.2.2 Safari/537.36", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Electron", BrowserVersion: "32"}},
	// Words of the names of programs.
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15 SafariTechnologyPreview/18.1", Info{Device: "desktop", OS: "macOS", Browser: "Safari", BrowserVersion: "18"}},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0 BlinkPreview/1 NucleiOS", Info{Device: "desktop", OS: "Windows", OSVersion: "10", Browser: "Edge", BrowserVersion: "131"}},
	// Phones.
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1.1 Mobile/15E148 Safari/604.1", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Safari", BrowserVersion: "18"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/133.0 Mobile/15E148 Safari/605.1.15", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Firefox", BrowserVersion: "133"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 EdgiOS/131.0.2903.48 Mobile/15E148 Safari/605.1.15", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Edge", BrowserVersion: "131"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1 OPT/5.2.3", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Opera", BrowserVersion: "5"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) GSA/344.0.695551749 Mobile/15E148 Safari/604.1", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Google App", BrowserVersion: "344", App: "Google"}},
	{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "10", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Firefox", BrowserVersion: "133"}},
	{"Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Samsung Internet", BrowserVersion: "26"}},
	{"Mozilla/5.0 (Linux; Android 13; CUBOT X30 Build/TP1A.220624.014) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.6099.230 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "13", Browser: "Chrome", BrowserVersion: "120"}},
	{"Mozilla/5.0 (Linux; Android 9; CUBOT_NOVA) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "9", Browser: "Chrome", BrowserVersion: "80"}},
	{"Mozilla/5.0 (Linux; Android 11; SM-A008/DS Build/RP1A.200720.012) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/110.0.0.0 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "11", Browser: "Chrome", BrowserVersion: "110"}},
	{"Mozilla/5.0 (Linux; Android 13; 2201117TY Build/TKQ1.221114.001; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.39 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "13", Browser: "Android WebView"}},
	{"Mozilla/5.0 (Linux; U; Android 13; en-us; Redmi Note 11 Build/TKQ1.221114.001) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/112.0.5615.136 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.20.2-gn", Info{Device: "mobile", OS: "Android", OSVersion: "13", Browser: "Miui Browser", BrowserVersion: "14"}},
	{"Mozilla/5.0 (Linux; Android 12; HarmonyOS; NOH-AN00; HMSCore 6.12.0.302) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.5735.196 HuaweiBrowser/15.0.4.302 Mobile Safari/537.36", Info{Device: "mobile", OS: "Harmony", Browser: "Huawei Browser", BrowserVersion: "15"}},
	{"Mozilla/5.0 (Linux; U; Android 12; zh-CN; V2049A Build/SP1A.210812.003) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.58 UCBrowser/15.5.8.1238 Mobile Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "12", Browser: "UC Browser", BrowserVersion: "15"}},
	{"Mozilla/5.0 (Linux; Android 10; ANA-AN00) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/68.0.3440.106 Mobile Safari/537.36 AWP/2.0 SogouMSE,SogouMobileBrowser/5.31.2", Info{Device: "mobile", OS: "Android", OSVersion: "10", Browser: "Sogou", BrowserVersion: "5"}},
	{"Opera/9.80 (Android; Opera Mini/36.2.2254/191.249; U; en) Presto/2.12.423 Version/12.16", Info{Device: "mobile", OS: "Android", Browser: "Opera Mini", BrowserVersion: "36"}},
	{"Mozilla/5.0 (Mobile; Nokia_8110_4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5", Info{Device: "mobile", OS: "KaiOS", OSVersion: "2", Browser: "Firefox", BrowserVersion: "48"}},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.0.0 Mobile DuckDuckGo/5 Safari/537.36", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "DuckDuckGo", BrowserVersion: "5"}},
	// Tablets, television.
	{"Mozilla/5.0 (iPad; CPU OS 12_5_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1.2 Mobile/15E148 Safari/604.1", Info{Device: "tablet", OS: "iOS", OSVersion: "12", Browser: "Safari", BrowserVersion: "12"}},
	{"Mozilla/5.0 (Linux; Android 13; SM-X906C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", Info{Device: "tablet", OS: "Android", OSVersion: "13", Browser: "Chrome", BrowserVersion: "131"}},
	{"Mozilla/5.0 (Android 13; Tablet; rv:133.0) Gecko/133.0 Firefox/133.0", Info{Device: "tablet", OS: "Android", OSVersion: "13", Browser: "Firefox", BrowserVersion: "133"}},
	{"Mozilla/5.0 (Linux; Android 11; KFTRWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/130.4.1 like Chrome/130.0.6723.102 Safari/537.36", Info{Device: "tablet", OS: "Android", OSVersion: "11", Browser: "Silk", BrowserVersion: "130"}},
	{"Mozilla/5.0 (SMART-TV; LINUX; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) 76.0.3809.146/6.0 TV Safari/537.36", Info{Device: "tv", OS: "Tizen", OSVersion: "6"}},
	{"Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/94.0.4606.128 Safari/537.36 WebAppManager", Info{Device: "tv", OS: "webOS", Browser: "Chrome", BrowserVersion: "94"}},
	{"Mozilla/5.0 (PlayStation; PlayStation 5/9.60) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.4 Safari/605.1.15", Info{Device: "tv", Browser: "Safari", BrowserVersion: "15"}},
	// Apps.
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22B83 [FBAN/FBIOS;FBAV/489.0.0.38.105;FBBV/660000000;FBDV/iPhone15,2;FBMD/iPhone;FBSN/iOS;FBSV/18.1;FBSS/3;FBID/phone;FBLC/de_DE;FBOP/5]", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Facebook", BrowserVersion: "489", App: "Facebook"}},
	{"Mozilla/5.0 (Linux; Android 14; SM-S911B Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/490.0.0.63.82;]", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Facebook", BrowserVersion: "490", App: "Facebook"}},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/AP2A.240805.005; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 [FB_IAB/Orca-Android;FBAV/485.0.0.66.110;]", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Messenger", App: "Messenger"}},
	{"Mozilla/5.0 (Linux; Android 16; Pixel 10 Pro XL Build/CP1A.260305.018; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/146.0.7680.174 Mobile Safari/537.36 MetaIAB Facebook", Info{Device: "mobile", OS: "Android", OSVersion: "16", Browser: "Facebook", App: "Facebook"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22B83 Instagram 358.0.0.29.90 (iPhone15,3; iOS 18_1; de_DE; de; scale=3.00; 1290x2796; 658000000)", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Instagram", BrowserVersion: "358", App: "Instagram"}},
	{"Mozilla/5.0 (Linux; Android 14; SM-A546B Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 Instagram 358.0.0.51.97 Android (34/14; 450dpi; 1080x2340; samsung; SM-A546B; a54x; s5e8835; de_DE; 657000000)", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Instagram", BrowserVersion: "358", App: "Instagram"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/21G80 Barcelona 358.0.0.27.91 (iPhone14,5; iOS 17_6; en_US; en; scale=3.00; 1170x2532; 657000000)", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Threads", BrowserVersion: "358", App: "Threads"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 musical_ly_37.0.0 JsSdk/2.0 NetType/WIFI Channel/App Store ByteLocale/de Region/DE BytedanceWebview/d8a21c6", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "TikTok", App: "TikTok"}},
	{"Mozilla/5.0 (Linux; Android 13; SM-G991B Build/TP1A.220624.014; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/130.0.6723.107 Mobile Safari/537.36 trill_370003 JsSdk/1.0 NetType/4G Channel/googleplay AppName/musical_ly ByteLocale/en", Info{Device: "mobile", OS: "Android", OSVersion: "13", Browser: "TikTok", App: "TikTok"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Snapchat/13.15.0.38 (like Safari/8619.1.26.31.6, panda)", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "Snapchat", BrowserVersion: "13", App: "Snapchat"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [LinkedInApp]/9.30.1210", Info{Device: "mobile", OS: "iOS", OSVersion: "18", Browser: "LinkedIn", App: "LinkedIn"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Safari Line/14.17.0", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Line", BrowserVersion: "14", App: "Line"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.53(0x18003531) NetType/WIFI Language/zh_CN", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "WeChat", BrowserVersion: "8", App: "WeChat"}},
	{"Mozilla/5.0 (Linux; Android 14; SM-S928N Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 KAKAOTALK/24.10.5 (INAPP)", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "KakaoTalk", BrowserVersion: "24", App: "KakaoTalk"}},
	{"Mozilla/5.0 (Linux; Android 14; SM-S928N; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 NAVER(inapp; search; 1300; 12.9.5)", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Naver", App: "Naver"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Twitter for iPhone/10.66", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "X", BrowserVersion: "10", App: "X"}},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 7 Build/UQ1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.39 Mobile Safari/537.36 TwitterAndroid", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "X", App: "X"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [Pinterest/iOS]", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Pinterest", App: "Pinterest"}},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 WhatsApp/24.22.81", Info{Device: "mobile", OS: "iOS", OSVersion: "17", Browser: "Safari", App: "WhatsApp"}},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 7; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.39 Mobile Safari/537.36 Viber/22.9.0", Info{Device: "mobile", OS: "Android", OSVersion: "14", Browser: "Android WebView", App: "Viber"}},
	{"Mozilla/5.0 (Linux; Android 13; SM-A135F Build/TP1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 GSA/15.44.33.28.arm64", Info{Device: "mobile", OS: "Android", OSVersion: "13", Browser: "Google App", BrowserVersion: "15", App: "Google"}},
}

func TestPeople(t *testing.T) {
	t.Parallel()
	p := New(Options{})
	for _, tt := range people {
		if got := p.Parse([]byte(tt.ua), nil, false); got != tt.want {
			t.Errorf("%s\n got %+v\nwant %+v", tt.ua, got, tt.want)
		}
	}
}

func TestBots(t *testing.T) {
	t.Parallel()
	p := New(Options{})
	for _, tt := range []struct {
		ua    string
		class Class
		name  string
	}{
		{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Search, "Googlebot"},
		{"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.6778.69 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Search, "Googlebot"},
		{"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36", Search, "bingbot"},
		{"Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", Search, "YandexBot"},
		{"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)", Search, "Baiduspider"},
		{"Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)", Search, "Sogou web spider"},
		{"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", Preview, "facebookexternalhit"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0", Preview, "facebookexternalhit"},
		{"Twitterbot/1.0", Preview, "Twitterbot"},
		{"LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)", Preview, "LinkedInBot"},
		{"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", Preview, "Slackbot"},
		{"Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)", Preview, "Discordbot"},
		{"TelegramBot (like TwitterBot)", Preview, "TelegramBot"},
		{"WhatsApp/2.23.20.0 A", Preview, "WhatsApp"},
		{"Viber", Preview, "Viber"},
		{"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)", AI, "GPTBot"},
		{"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", AI, "ClaudeBot"},
		{"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", Monitor, "AhrefsBot"},
		{"Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)", Monitor, "SemrushBot"},
		{"Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", Monitor, "UptimeRobot"},
		{"curl/8.5.0", Library, "curl"},
		{"Wget/1.21.4", Library, "Wget"},
		{"python-requests/2.32.3", Library, "python-requests"},
		{"Go-http-client/2.0", Library, "Go-http-client"},
		{"okhttp/4.12.0", Library, "okhttp"},
		{"axios/1.7.7", Library, "axios"},
		{"", Library, ""},
		{"  ", Library, ""},
		{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0.0.0 Safari/537.36", Automation, "HeadlessChrome"},
		{"Mozilla/5.0 zgrab/0.x", Scanner, "zgrab"},
		{"sqlmap/1.7.8#stable (https://sqlmap.org)", Scanner, "sqlmap"},
		{"Mozilla/5.0 (compatible; Bluesky Cardyb/1.1; +mailto:support@bsky.app)", Preview, "Bluesky Cardyb"},
		{"Rocket.Chat Link Preview", Preview, "Rocket.Chat Link Preview"},
		{"Mozilla/5.0 (compatible; NotionEmbedder/1.0; +https://www.notion.so)", Preview, "NotionEmbedder"},
		{"ExampleChat/2.1 (LinkPreview)", Preview, "LinkPreview"},
		{"Mozilla/5.0 (compatible; Example URL Preview/1.0)", Preview, "URL Preview"},
		{"example-url preview/3", Preview, "url preview"},
		{"Nuclei - Open-source project (github.com/projectdiscovery/nuclei)", Scanner, "Nuclei - Open-source project"},
		{"ExampleLinkWatcher/1.0 (+https://example.org/about-our-robot)", Monitor, "ExampleLinkWatcher"},
	} {
		got := p.Parse([]byte(tt.ua), nil, false)
		if got.Bot != tt.class || got.BotName != tt.name || got.Device != "bot" {
			t.Errorf("%q: %d %q %q, want %d %q", tt.ua, got.Bot, got.BotName, got.Device, tt.class, tt.name)
		}
	}
}

// TestList runs every example of the list. The exceptions are people by
// data/overrides.tsv.
func TestList(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/crawlers.txt")
	if err != nil {
		t.Fatal(err)
	}
	p := New(Options{CacheEntries: 10})
	var missed []string
	n := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		n++
		if p.Parse([]byte(line), nil, false).Bot == Person {
			missed = append(missed, line)
		}
	}
	if n < 2000 || len(missed) > 12 {
		t.Errorf("%d of %d examples are people:\n%s", len(missed), n, strings.Join(missed, "\n"))
	}
}

func TestHints(t *testing.T) {
	t.Parallel()
	p := New(Options{})
	const desktopSite = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
	const reduced = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36"
	for _, tt := range []struct {
		ua, platform string
		mobile       bool
		os, device   string
	}{
		{desktopSite, `"Android"`, false, "Android", "tablet"},
		{desktopSite, `"Android"`, true, "Android", "mobile"},
		{desktopSite, `"Linux"`, false, "Linux", "desktop"},
		{desktopSite, `"Chrome OS"`, false, "ChromeOS", "desktop"},
		{desktopSite, `"<script>"`, false, "Linux", "desktop"},
		{desktopSite, ``, false, "Linux", "desktop"},
		{reduced, `"Android"`, true, "Android", "mobile"},
	} {
		got := p.Parse([]byte(tt.ua), []byte(tt.platform), tt.mobile)
		if got.OS != tt.os || got.Device != tt.device {
			t.Errorf("%s %v: %s %s, want %s %s", tt.platform, tt.mobile, got.OS, got.Device, tt.os, tt.device)
		}
	}
}

// TestAutomaton compares the machine with the plain search.
func TestAutomaton(t *testing.T) {
	t.Parallel()
	list := loadBots()
	data, err := os.ReadFile("testdata/crawlers.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, p := range people {
		lines = append(lines, p.ua)
	}
	for _, line := range lines {
		want, got := map[int]int{}, map[int]int{}
		for i, p := range list.patterns {
			for at := 0; p.literal != ""; at++ {
				k := strings.Index(line[at:], p.literal)
				if k < 0 {
					break
				}
				at += k
				want[i]++
			}
		}
		list.machine.walk([]byte(line), func(i, end int) {
			if l := list.patterns[i].literal; l != "" {
				if line[end-len(l):end] != l {
					t.Fatalf("%q: %q does not end at %d", line, l, end)
				}
				got[i]++
			}
		})
		if len(got) != len(want) {
			t.Fatalf("%q: %v, want %v", line, got, want)
		}
		for i, n := range want {
			if got[i] != n {
				t.Fatalf("%q: %q found %d times, want %d", line, list.patterns[i].literal, got[i], n)
			}
		}
	}
}

// TestBotList: the list compiles, and every rule has a literal, so no regular
// expression runs for every User-Agent.
func TestBotList(t *testing.T) {
	t.Parallel()
	list := loadBots()
	if len(list.patterns) < 1450 {
		t.Fatalf("%d patterns", len(list.patterns))
	}
	for _, p := range list.patterns {
		if len(p.literal) < 3 {
			t.Errorf("literal %q of %v is too short", p.literal, p.expr)
		}
	}
	for line := range strings.Lines(overridesTSV) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if line[0] != '#' && (len(f) != 3 || !strings.Contains(crawlersTSV, "\t"+f[0]+"\n")) {
			t.Errorf("override of nothing: %q", line)
		}
	}
	for _, bad := range []string{"seo\t(", "seo\t[z-a]"} {
		if _, err := compileBots(bad, ""); err == nil {
			t.Errorf("%q compiled", bad)
		}
	}
}

// TestAppNames: apps are called what package clicks calls their sites.
func TestAppNames(t *testing.T) {
	t.Parallel()
	sources, err := os.ReadFile("../clicks/data/sources.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range appTokens {
		if !strings.Contains(string(sources), "\n"+a.name+": ") {
			t.Errorf("%q is no group of sources", a.name)
		}
	}
}

func TestMemoIsBounded(t *testing.T) {
	t.Parallel()
	p := New(Options{CacheEntries: 8})
	for i := range 100 {
		p.Parse([]byte(strings.Repeat("x", i)), nil, false)
	}
	if len(p.memo) > 8 {
		t.Fatal(len(p.memo))
	}
}

func TestParseAllocs(t *testing.T) {
	p := New(Options{})
	ua := []byte(people[0].ua)
	if n := testing.AllocsPerRun(100, func() { p.Parse(ua, nil, false) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range people {
		f.Add([]byte(p.ua), []byte(`"Android"`), true)
	}
	f.Add([]byte("Mozilla/5.0 (\xff\xfe Android"), []byte("\x00"), false)
	f.Add([]byte(strings.Repeat("(", 2000)), []byte{}, false)
	p := New(Options{CacheEntries: 64})
	devices := map[string]bool{"": true, "desktop": true, "mobile": true, "tablet": true, "tv": true, "bot": true}
	f.Fuzz(func(t *testing.T, ua, platform []byte, mobile bool) {
		got := p.Parse(ua, platform, mobile)
		if again := p.Parse(ua, platform, mobile); again != got {
			t.Fatalf("%+v then %+v", got, again)
		}
		if !devices[got.Device] || (got.Bot != Person) != (got.Device == "bot") || got.Bot > Scanner {
			t.Fatalf("%+v", got)
		}
		for _, s := range []string{got.OSVersion, got.BrowserVersion} {
			if strings.Trim(s, "0123456789") != "" && s != "XP" && s != "Vista" || len(s) > 5 {
				t.Fatalf("version %q", s)
			}
		}
		if len(got.BotName) > maxBotName || !utf8.ValidString(got.BotName) || strings.ContainsAny(got.BotName, "<>\"'&") {
			t.Fatalf("name %q", got.BotName)
		}
	})
}

func BenchmarkParseNew(b *testing.B) {
	p := New(Options{CacheEntries: 1})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Parse([]byte(people[i%len(people)].ua), nil, false)
	}
}

func BenchmarkParseKnown(b *testing.B) {
	p := New(Options{})
	ua := []byte(people[0].ua)
	b.ReportAllocs()
	for b.Loop() {
		p.Parse(ua, nil, false)
	}
}
