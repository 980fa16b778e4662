"""The six stages of a record, numbered in their order. Only s3_call and s6_ack wait for anything."""
