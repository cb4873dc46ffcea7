//go:build !linux

package main

import "errors"

// hide is for Linux, where Perenne runs; elsewhere a passphrase comes from a file, or is seen.
func hide(int) (show func(), err error) { return nil, errors.ErrUnsupported }
