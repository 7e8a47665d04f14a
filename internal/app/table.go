package app

import (
	"context"

	"github.com/terselink/terse/internal/store/dynamostore"
)

// TableOptions name a DynamoDB table.
type TableOptions struct {
	Table, Region, Endpoint string
}

// CreateTable makes the DynamoDB table of a server and waits until it is active.
func CreateTable(ctx context.Context, o TableOptions) error {
	cfg, err := dynamostore.LoadConfig(ctx, o.Region)
	if err != nil {
		return err
	}
	return dynamostore.CreateTable(ctx, dynamostore.Client(cfg, o.Endpoint), o.Table)
}

// CloudFormation returns the template of the table that CreateTable makes.
func CloudFormation(table string) string { return dynamostore.CloudFormation(table) }
