package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// createTimeout bounds how long CreateTable waits for the table to become active.
const createTimeout = 5 * time.Minute

// CreateTable makes the table of a store: on demand, encrypted, with the index, time to live and
// recovery to any point in time. A table of that name that exists is left alone, but for what is missing of the latter two.
func CreateTable(ctx context.Context, db *dynamodb.Client, table string) error {
	const op = "create table"
	fail := func(err error) error {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the table cannot be made", Op: op, Err: err}
	}
	attr := func(name string, t types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: t}
	}
	keys := func(pk, sk string) []types.KeySchemaElement {
		return []types.KeySchemaElement{
			{AttributeName: aws.String(pk), KeyType: types.KeyTypeHash}, {AttributeName: aws.String(sk), KeyType: types.KeyTypeRange},
		}
	}
	_, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			attr(attrPK, types.ScalarAttributeTypeS), attr(attrSK, types.ScalarAttributeTypeB),
			attr(attrGPK, types.ScalarAttributeTypeS), attr(attrGSK, types.ScalarAttributeTypeB),
		},
		KeySchema: keys(attrPK, attrSK),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String(indexName), KeySchema: keys(attrGPK, attrGSK),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll},
		}},
	})
	if _, exists := errors.AsType[*types.ResourceInUseException](err); err != nil && !exists {
		return fail(err)
	}
	waiter := dynamodb.NewTableExistsWaiter(db, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &table}, createTimeout); err != nil {
		return fail(err)
	}
	ttl, err := db.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &table})
	if err != nil {
		return fail(err)
	}
	if d := ttl.TimeToLiveDescription; d == nil || d.TimeToLiveStatus == types.TimeToLiveStatusDisabled {
		_, err := db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
			TableName: &table, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(attrTTL), Enabled: aws.Bool(true)},
		})
		if err != nil {
			return fail(err)
		}
	}
	_, err = db.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{
		TableName: &table, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)},
	})
	if err != nil && !unsupported(err) {
		return fail(err)
	}
	return nil
}

// unsupported reports whether DynamoDB Local lacks the operation.
func unsupported(err error) bool {
	var api interface{ ErrorCode() string }
	return errors.As(err, &api) && (api.ErrorCode() == "UnknownOperationException" || api.ErrorCode() == "ValidationException")
}

// CloudFormation returns the template of the table that CreateTable makes.
func CloudFormation(table string) string {
	return fmt.Sprintf(`AWSTemplateFormatVersion: "2010-09-09"
Description: The table of a Terse installation.
Resources:
  Links:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      TableName: %q
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions:
        - { AttributeName: %s, AttributeType: S }
        - { AttributeName: %s, AttributeType: B }
        - { AttributeName: %s, AttributeType: S }
        - { AttributeName: %s, AttributeType: B }
      KeySchema:
        - { AttributeName: %s, KeyType: HASH }
        - { AttributeName: %s, KeyType: RANGE }
      GlobalSecondaryIndexes:
        - IndexName: %s
          KeySchema:
            - { AttributeName: %s, KeyType: HASH }
            - { AttributeName: %s, KeyType: RANGE }
          Projection: { ProjectionType: ALL }
      TimeToLiveSpecification: { AttributeName: %s, Enabled: true }
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }
      SSESpecification: { SSEEnabled: false } # the key that AWS owns
`, table, attrPK, attrSK, attrGPK, attrGSK, attrPK, attrSK, indexName, attrGPK, attrGSK, attrTTL)
}
