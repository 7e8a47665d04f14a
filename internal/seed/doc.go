// Package seed invents believable links and clicks for demonstrations, tests and benchmarks: campaigns, tags, a
// few links with most of the clicks, days and weeks in several time zones, bursts, bots, QR codes, referrers, UTM,
// links that are unknown or expired, conversions. The same seed and time give the same clicks.
//
// It only makes them up: package app writes links through the link service and clicks as segments of
// the spool, the formats of the real pipeline.
package seed
