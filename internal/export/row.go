package export

import (
	"fmt"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Row is one click as the API and text files show it. No field holds a whole address.
type Row struct {
	ID             string    `json:"id" doc:"The click id, which conversions name." example:"click_01kaq3v3s8x6m9c2f4h7j0n5pq"`
	Ts             time.Time `json:"ts"`
	WorkspaceID    string    `json:"workspace_id"`
	LinkID         string    `json:"link_id" doc:"Empty for an unknown code."`
	CampaignID     string    `json:"campaign_id" doc:"Empty for a link without one."`
	Domain         string    `json:"domain"`
	Code           string    `json:"code" doc:"As requested."`
	Destination    string    `json:"destination" doc:"Without its query."`
	Rule           int       `json:"rule" doc:"0 for the default destination, else the number of the rule or variant."`
	Outcome        string    `json:"outcome"`
	Trigger        string    `json:"trigger"`
	Visitor        string    `json:"visitor" doc:"16 hexadecimal digits, another person every UTC day; empty for none."`
	Repeat         bool      `json:"repeat" doc:"The same visitor on the same link within an hour."`
	Bot            string    `json:"bot" doc:"human, or the class of the bot."`
	BotName        string    `json:"bot_name"`
	Country        string    `json:"country"`
	Region         string    `json:"region"`
	City           string    `json:"city"`
	ASN            uint32    `json:"asn" doc:"0 if it is not known."`
	Device         string    `json:"device"`
	OS             string    `json:"os"`
	OSVersion      string    `json:"os_version"`
	Browser        string    `json:"browser"`
	BrowserVersion string    `json:"browser_version"`
	Language       string    `json:"language"`
	Referrer       string    `json:"referrer"`
	ReferrerPath   string    `json:"referrer_path"`
	Source         string    `json:"source"`
	UTMSource      string    `json:"utm_source"`
	UTMMedium      string    `json:"utm_medium"`
	UTMCampaign    string    `json:"utm_campaign"`
	UTMTerm        string    `json:"utm_term"`
	UTMContent     string    `json:"utm_content"`
	Weight         int       `json:"weight" doc:"How many clicks the row stands for: 1 unless clicks were sampled under overload."`
	Node           string    `json:"node"`
	UserAgent      string    `json:"user_agent" doc:"Whole, at most 512 bytes. Empty unless the workspace has store_ua."`
	IP             string    `json:"ip" doc:"The network that the address is in, /24 of IPv4 and /48 of IPv6. Empty unless the workspace has store_ip." example:"203.0.113.0/24"`
}

// RowOf returns the row of a click.
func RowOf(ev *clicks.Event) Row {
	r := Row{
		ID: terse.ClickID(ev.ID).String(), Ts: ev.At.Time(), WorkspaceID: ev.Workspace.String(), LinkID: analytics.Link.Text(uint64(ev.Link)),
		CampaignID: analytics.Campaign.Text(uint64(ev.Campaign)), Domain: ev.Domain, Code: ev.Code, Destination: ev.Destination, Rule: int(ev.Rule),
		Outcome: analytics.Outcome.Of(ev), Trigger: ev.Trigger, Repeat: ev.Repeat, Bot: analytics.Bot.Of(ev), BotName: ev.BotName,
		Country: ev.Country, Region: ev.Region, City: ev.City, ASN: ev.ASN, Device: ev.Device, OS: ev.OS, OSVersion: ev.OSVersion,
		Browser: ev.Browser, BrowserVersion: ev.BrowserVer, Language: ev.Language, Referrer: ev.RefHost, ReferrerPath: ev.RefPath, Source: ev.Source,
		UTMSource: ev.UTMSource, UTMMedium: ev.UTMMedium, UTMCampaign: ev.UTMCampaign, UTMTerm: ev.UTMTerm, UTMContent: ev.UTMContent,
		Weight: int(ev.Weight), Node: ev.Node, UserAgent: ev.UserAgent, IP: ev.IP,
	}
	if ev.Visitor != 0 {
		r.Visitor = fmt.Sprintf("%016x", ev.Visitor)
	}
	return r
}

// parquetRow is one click of a Parquet file: the types of docs/clicks.md, without
// unsigned numbers, which some readers do not know.
type parquetRow struct {
	EventID     string `parquet:"event_id"`
	Ts          int64  `parquet:"ts,timestamp(millisecond)"`
	WorkspaceID int32  `parquet:"workspace_id"`
	LinkID      int64  `parquet:"link_id"`
	CampaignID  int64  `parquet:"campaign_id"`
	Domain      string `parquet:"domain,dict"`
	Code        string `parquet:"code,dict"`
	Destination string `parquet:"destination,dict"`
	Rule        int32  `parquet:"rule"`
	Outcome     string `parquet:"outcome,dict"`
	Trigger     string `parquet:"trigger,dict"`
	Visitor     int64  `parquet:"visitor"`
	Repeat      int32  `parquet:"repeat"`
	Bot         int32  `parquet:"bot"`
	BotName     string `parquet:"bot_name,dict"`
	Country     string `parquet:"country,dict"`
	Region      string `parquet:"region,dict"`
	City        string `parquet:"city,dict"`
	ASN         int64  `parquet:"asn"`
	Device      string `parquet:"device,dict"`
	OS          string `parquet:"os,dict"`
	OSVer       string `parquet:"os_ver,dict"`
	Browser     string `parquet:"browser,dict"`
	BrowserVer  string `parquet:"browser_ver,dict"`
	Lang        string `parquet:"lang,dict"`
	RefHost     string `parquet:"ref_host,dict"`
	RefPath     string `parquet:"ref_path,dict"`
	Source      string `parquet:"source,dict"`
	UTMSource   string `parquet:"utm_source,dict"`
	UTMMedium   string `parquet:"utm_medium,dict"`
	UTMCampaign string `parquet:"utm_campaign,dict"`
	UTMTerm     string `parquet:"utm_term,dict"`
	UTMContent  string `parquet:"utm_content,dict"`
	Weight      int32  `parquet:"weight"`
	Node        string `parquet:"node,dict"`
	UserAgent   string `parquet:"user_agent,dict"`
	IP          string `parquet:"ip,dict"`
}

// parquetOf returns the Parquet row of a click.
func parquetOf(ev *clicks.Event) parquetRow {
	r := parquetRow{
		EventID: uuid(ev.ID), Ts: int64(ev.At), WorkspaceID: int32(ev.Workspace), LinkID: int64(ev.Link), CampaignID: int64(ev.Campaign),
		Domain: ev.Domain, Code: ev.Code, Destination: ev.Destination, Rule: int32(ev.Rule), Outcome: analytics.Outcome.Of(ev), Trigger: ev.Trigger,
		Visitor: int64(ev.Visitor), Bot: int32(ev.Bot), BotName: ev.BotName, Country: ev.Country, Region: ev.Region, City: ev.City,
		ASN: int64(ev.ASN), Device: ev.Device, OS: ev.OS, OSVer: ev.OSVersion, Browser: ev.Browser, BrowserVer: ev.BrowserVer, Lang: ev.Language,
		RefHost: ev.RefHost, RefPath: ev.RefPath, Source: ev.Source, UTMSource: ev.UTMSource, UTMMedium: ev.UTMMedium, UTMCampaign: ev.UTMCampaign,
		UTMTerm: ev.UTMTerm, UTMContent: ev.UTMContent, Weight: int32(ev.Weight), Node: ev.Node, UserAgent: ev.UserAgent, IP: ev.IP,
	}
	if ev.Repeat {
		r.Repeat = 1
	}
	return r
}

// uuid returns the text form of RFC 9562.
func uuid(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
