package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/terselink/terse/client"
)

func Example() {
	c, err := client.New(client.Options{Key: os.Getenv("TERSE_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	link, err := c.CreateLink(context.Background(), client.NewLink{Destination: "https://example.com/some/long/path", Code: "summer"})
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "alias_taken" {
		log.Fatal("choose another name")
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println(link.ShortURL)
}

func ExampleClient_Bulk() {
	c, err := client.New(client.Options{Key: os.Getenv("TERSE_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	recipients := func(yield func(client.NewLink) bool) {
		for i := range 1_000_000 {
			row := client.NewLink{Destination: fmt.Sprintf("https://shop.example/?u=%d", i), ExternalID: fmt.Sprintf("r-%d", i)}
			if !yield(row) {
				return
			}
		}
	}
	for r, err := range c.Bulk(context.Background(), client.BulkOptions{}, recipients) {
		if err != nil {
			log.Fatal(err)
		}
		if r.Err != nil {
			log.Printf("row %d: %v", r.Index, r.Err)
			continue
		}
		fmt.Println(r.ExternalID, r.ShortURL)
	}
}

func ExampleClient_AddLinks() {
	c, err := client.New(client.Options{Key: os.Getenv("TERSE_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	campaign, err := c.CreateCampaign(ctx, client.NewCampaign{Name: "Black Friday", Destination: "https://shop.example/p/{sku}?u={user}"})
	if err != nil {
		log.Fatal(err)
	}
	recipients := func(yield func(client.CampaignRow) bool) {
		for i := range 1_000_000 {
			row := client.CampaignRow{Values: map[string]string{"sku": "A17", "user": fmt.Sprint(i)}, ExternalID: fmt.Sprintf("r-%d", i)}
			if !yield(row) {
				return
			}
		}
	}
	for r, err := range c.AddLinks(ctx, campaign.ID, client.BulkOptions{}, recipients) {
		if err != nil {
			log.Fatal(err)
		}
		if r.Err != nil {
			log.Printf("row %d: %v", r.Index, r.Err)
			continue
		}
		fmt.Println(r.ExternalID, r.ShortURL)
	}
}

func ExampleClient_UpdateCampaign() {
	c, err := client.New(client.Options{Key: os.Getenv("TERSE_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	// One write: the next visit of each of its million links goes to the new place.
	campaign, err := c.UpdateCampaign(context.Background(), "camp_0srk3a00000g0", client.CampaignPatch{
		Destination: client.Set("https://shop.example/sold-out?was={sku}"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(campaign.Links, "links lead to", campaign.Destination)
}

func ExampleClient_ExportCampaign() {
	c, err := client.New(client.Options{Key: os.Getenv("TERSE_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	rows, err := c.ExportCampaign(context.Background(), "camp_0srk3a00000g0", client.CSV)
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	if _, err := io.Copy(os.Stdout, rows); err != nil {
		log.Fatal(err)
	}
}
