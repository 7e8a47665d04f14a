package redirect

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/domains"
)

// page is a page for people. All but pagePreview, pageApp and pageForward are the same for everybody.
type page uint8

const (
	pageNotFound page = iota
	pageGone
	pageBlocked
	pageUnavailable
	pageRoot
	pagePreview
	pageApp
	pageForward
	pagePassword
	pageWrong
	pageSlow
	pageCount
)

// language is one of the languages of the pages, English the first and the default.
type language uint8

const languageCount = 6

var languages = [languageCount]string{"en", "de", "fr", "es", "pt", "ja"}

// words are the texts of one page in one language.
type words struct{ Title, Text string }

// texts are by page, then by language.
var texts = [pageCount][languageCount]words{
	pageNotFound: {
		{"Link not found", "There is no link at this address. Check it for typing errors, or ask the person who sent it to you."},
		{"Link nicht gefunden", "Unter dieser Adresse gibt es keinen Link. Prüfen Sie sie auf Tippfehler oder fragen Sie die Person, die sie Ihnen geschickt hat."},
		{"Lien introuvable", "Aucun lien n’existe à cette adresse. Vérifiez qu’elle est bien écrite ou demandez à la personne qui vous l’a envoyée."},
		{"Enlace no encontrado", "No hay ningún enlace en esta dirección. Compruebe que esté bien escrita o pregunte a quien se la envió."},
		{"Link não encontrado", "Não existe nenhum link neste endereço. Verifique se está bem escrito ou pergunte a quem o enviou."},
		{"リンクが見つかりません", "このアドレスにリンクはありません。入力の誤りがないか確かめるか、送ってくれた方にお問い合わせください。"},
	},
	pageGone: {
		{"This link has ended", "The link is no longer available."},
		{"Dieser Link ist beendet", "Der Link ist nicht mehr verfügbar."},
		{"Ce lien n’est plus actif", "Le lien n’est plus disponible."},
		{"Este enlace ha terminado", "El enlace ya no está disponible."},
		{"Este link terminou", "O link já não está disponível."},
		{"このリンクは終了しました", "リンクはもう利用できません。"},
	},
	pageBlocked: {
		{"This link was blocked", "It was reported for abuse, such as fraud or malware, and leads nowhere any more. If you entered data behind it, change your passwords."},
		{"Dieser Link wurde gesperrt", "Er wurde wegen Missbrauchs gemeldet, etwa Betrug oder Schadsoftware, und führt nirgends mehr hin. Falls Sie dort Daten eingegeben haben, ändern Sie Ihre Passwörter."},
		{"Ce lien a été bloqué", "Il a été signalé pour abus, par exemple fraude ou logiciel malveillant, et ne mène plus nulle part. Si vous y avez saisi des données, changez vos mots de passe."},
		{"Este enlace fue bloqueado", "Se denunció por abuso, como fraude o software malicioso, y ya no lleva a ninguna parte. Si introdujo datos allí, cambie sus contraseñas."},
		{"Este link foi bloqueado", "Foi denunciado por abuso, como fraude ou software malicioso, e já não leva a lado nenhum. Se introduziu dados nesse site, altere as suas senhas."},
		{"このリンクは遮断されました", "詐欺や不正なソフトウェアなどの悪用が報告されたため、リンク先には移動できません。リンク先で情報を入力した場合は、パスワードを変更してください。"},
	},
	pageUnavailable: {
		{"Please try again", "The link cannot be opened at the moment. Try again in a few seconds."},
		{"Bitte noch einmal versuchen", "Der Link kann im Moment nicht geöffnet werden. Versuchen Sie es in ein paar Sekunden noch einmal."},
		{"Veuillez réessayer", "Le lien ne peut pas être ouvert pour le moment. Réessayez dans quelques secondes."},
		{"Inténtelo de nuevo", "El enlace no se puede abrir en este momento. Vuelva a intentarlo en unos segundos."},
		{"Tente novamente", "O link não pode ser aberto neste momento. Tente novamente dentro de alguns segundos."},
		{"もう一度お試しください", "ただいまリンクを開けません。数秒後にもう一度お試しください。"},
	},
	pageRoot: {
		{"Short links", "This domain serves short links."},
		{"Kurzlinks", "Diese Domain dient Kurzlinks."},
		{"Liens courts", "Ce domaine sert des liens courts."},
		{"Enlaces cortos", "Este dominio sirve enlaces cortos."},
		{"Links curtos", "Este domínio serve links curtos."},
		{"短縮リンク", "このドメインは短縮リンク用です。"},
	},
	pagePreview: {
		{"Where this link leads", "The short link leads to this address:"},
		{"Wohin dieser Link führt", "Der Kurzlink führt zu dieser Adresse:"},
		{"Où mène ce lien", "Le lien court mène à cette adresse :"},
		{"Adónde lleva este enlace", "El enlace corto lleva a esta dirección:"},
		{"Aonde leva este link", "O link curto leva a este endereço:"},
		{"リンク先の確認", "この短縮リンクのリンク先は次のとおりです："},
	},
	pageApp: {
		{"This link opens an app", "If the app does not open by itself, choose how to go on."},
		{"Dieser Link öffnet eine App", "Wenn sich die App nicht von selbst öffnet, wählen Sie, wie es weitergeht."},
		{"Ce lien ouvre une application", "Si l’application ne s’ouvre pas d’elle-même, choisissez comment continuer."},
		{"Este enlace abre una aplicación", "Si la aplicación no se abre sola, elija cómo continuar."},
		{"Este link abre uma aplicação", "Se a aplicação não abrir sozinha, escolha como continuar."},
		{"このリンクはアプリで開きます", "アプリが自動的に開かない場合は、続ける方法を選んでください。"},
	},
	pageForward: {
		{"One moment", "You are being sent on to this address:"},
		{"Einen Moment", "Sie werden zu dieser Adresse weitergeleitet:"},
		{"Un instant", "Vous allez être redirigé vers cette adresse :"},
		{"Un momento", "Se le está redirigiendo a esta dirección:"},
		{"Um momento", "Está a ser encaminhado para este endereço:"},
		{"少々お待ちください", "次のアドレスに移動します："},
	},
	pagePassword: {
		{"Password needed", "Enter the password of this link."},
		{"Passwort erforderlich", "Geben Sie das Passwort dieses Links ein."},
		{"Mot de passe requis", "Saisissez le mot de passe de ce lien."},
		{"Se necesita una contraseña", "Introduzca la contraseña de este enlace."},
		{"Senha necessária", "Introduza a senha deste link."},
		{"パスワードが必要です", "このリンクのパスワードを入力してください。"},
	},
	pageWrong: {
		{"Wrong password", "This is not the password of the link. Try again."},
		{"Falsches Passwort", "Das ist nicht das Passwort des Links. Versuchen Sie es noch einmal."},
		{"Mot de passe incorrect", "Ce n’est pas le mot de passe de ce lien. Réessayez."},
		{"Contraseña incorrecta", "Esta no es la contraseña del enlace. Inténtelo de nuevo."},
		{"Senha incorreta", "Esta não é a senha do link. Tente novamente."},
		{"パスワードが違います", "このリンクのパスワードではありません。もう一度お試しください。"},
	},
	pageSlow: {
		{"Too many attempts", "Wait a little, then enter the password again."},
		{"Zu viele Versuche", "Warten Sie ein wenig und geben Sie das Passwort dann noch einmal ein."},
		{"Trop de tentatives", "Attendez un peu, puis saisissez de nouveau le mot de passe."},
		{"Demasiados intentos", "Espere un poco y vuelva a introducir la contraseña."},
		{"Demasiadas tentativas", "Aguarde um pouco e introduza a senha novamente."},
		{"試行回数が多すぎます", "少し待ってから、もう一度パスワードを入力してください。"},
	},
}

// buttons are the words of the button of a form.
var buttons = [languageCount]string{"Continue", "Weiter", "Continuer", "Continuar", "Continuar", "続ける"}

// supportWords name the way to whoever runs the domain.
var supportWords = [languageCount]string{"Help and contact", "Hilfe und Kontakt", "Aide et contact", "Ayuda y contacto", "Ajuda e contacto", "ヘルプとお問い合わせ"}

// appWords are the buttons of the page that opens an app: the app, its store, the web.
var appWords = [languageCount][3]string{
	{"Open the app", "Get the app", "Continue in the browser"},
	{"App öffnen", "App laden", "Im Browser fortfahren"},
	{"Ouvrir l’application", "Obtenir l’application", "Continuer dans le navigateur"},
	{"Abrir la aplicación", "Obtener la aplicación", "Continuar en el navegador"},
	{"Abrir a aplicação", "Obter a aplicação", "Continuar no navegador"},
	{"アプリを開く", "アプリを入手", "ブラウザで続ける"},
}

// answerPreview shows where a link leads. It is no visit and is not recorded.
func (s *Server) answerPreview(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, target string, canonical []byte) {
	s.count(r, countPreview)
	lang := preferredLanguage(r.language)
	short := code.AppendPath([]byte(d.Base()), string(canonical))
	s.answerRendered(ctx, s.skins.of(d), pagePreview, lang, &pageData{Short: string(short), Destination: target}, policyHeaders{form: "'none'"})
}

// preferredLanguage reads an Accept-Language header: the highest weight wins, the
// earlier of equals. Anything that cannot be read is skipped.
func preferredLanguage(header []byte) language {
	best, bestQ := language(0), 0
	for more := true; more && len(header) > 0; {
		var item []byte
		item, header, more = bytes.Cut(header, []byte{','})
		tag, params, _ := bytes.Cut(item, []byte{';'})
		primary, _, _ := bytes.Cut(bytes.TrimSpace(tag), []byte{'-'})
		q := quality(params)
		if q <= bestQ {
			continue
		}
		for l, name := range languages {
			if equalFold(primary, name) {
				best, bestQ = language(l), q
			}
		}
	}
	return best
}

// quality reads ";q=0.8" as 800; no weight is 1000, a wrong one 0.
func quality(params []byte) int {
	p := strings.TrimSpace(bytesString(params))
	if p == "" {
		return 1000
	}
	v, ok := strings.CutPrefix(p, "q=")
	if !ok || v == "" || len(v) > 5 || len(v) > 1 && v[1] != '.' {
		return 0
	}
	n := 0
	for i, scale := 0, 1000; i < len(v); i++ {
		if i == 1 {
			continue
		}
		c := v[i]
		if c < '0' || c > '9' {
			return 0
		}
		n += int(c-'0') * scale
		scale /= 10
	}
	return min(n, 1000)
}
