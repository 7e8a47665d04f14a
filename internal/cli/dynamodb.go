package cli

import (
	"context"
	"fmt"
)

// TableOptions name a DynamoDB table.
type TableOptions struct {
	Table    string
	Region   string // "": where AWS programs find it
	Endpoint string // "": that of the region
}

// DynamoDB is what the command line does with tables.
type DynamoDB struct {
	// CreateTable makes the table and waits until it is active; one that exists is left as it is.
	CreateTable func(ctx context.Context, o TableOptions) error
	// CloudFormation returns the template of the same table.
	CloudFormation func(table string) string
}

type dynamodbCmd struct {
	CreateTable createTableCmd `cmd:"" help:"Make the table of a server, on demand, or print the CloudFormation of it."`
}

type createTableCmd struct {
	Table               string `help:"Name of the table." default:"terse" placeholder:"NAME"`
	Region              string `help:"AWS region; without it where AWS programs find it." placeholder:"REGION"`
	Endpoint            string `help:"URL of another endpoint than the region's, such as DynamoDB Local." placeholder:"URL"`
	PrintCloudformation bool   `help:"Print the CloudFormation template of the table and make nothing."`
}

func (createTableCmd) Help() string {
	return "Needs AWS credentials in one of the usual places, with the right to make tables; a server needs fewer rights (docs/dynamodb.md). " +
		"A table of that name that exists is left as it is."
}

func (c *createTableCmd) Run(s *session) error {
	if c.Table == "" {
		return usage("--table must name a table")
	}
	if c.PrintCloudformation {
		_, err := fmt.Fprint(s.Stdout, s.DynamoDB.CloudFormation(c.Table))
		return err
	}
	if err := s.DynamoDB.CreateTable(s.ctx, TableOptions{Table: c.Table, Region: c.Region, Endpoint: c.Endpoint}); err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(map[string]string{"table": c.Table})
	}
	_, err := fmt.Fprintf(s.Stdout, "The table %s is ready: terse serve --store-engine dynamodb --store-dynamodb-table %s\n", c.Table, c.Table)
	return err
}
