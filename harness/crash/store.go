package main

import (
	"context"
	"path/filepath"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// stores gives each installation a store of its own.
type stores struct {
	kind   string
	server *s3test.Server // nil for the embedded store
}

// openStores starts the server, if the kind is one. Its data lie in scratch.
func openStores(ctx context.Context, kind, scratch string) (*stores, error) {
	s := &stores{kind: kind}
	if kind == "dir" {
		return s, nil
	}
	var err error
	s.server, err = s3test.Run(ctx, kind, filepath.Join(scratch, kind))
	return s, err
}

func (s *stores) next(ctx context.Context) (rig.Store, error) {
	if s.server == nil {
		return rig.Dir(), nil
	}
	return rig.S3(ctx, s.server)
}

func (s *stores) close() error {
	if s.server == nil {
		return nil
	}
	return s.server.Kill()
}
