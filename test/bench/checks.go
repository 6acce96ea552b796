package main

import (
	"context"
)

func checking(ctx context.Context, args []string) (any, error)    { return nil, nil }
func programming(ctx context.Context, args []string) (any, error) { return nil, nil }
func httpd(ctx context.Context, args []string) (any, error)       { return nil, nil }
