package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/marchesud/perenne/storage"
)

// Yardstick is the handler that does nothing but hash and put. It is a [Target] too: the direct put, without HTTP.
type Yardstick struct {
	Store storage.Store
	// Lock is how far ahead objects are locked; 0 asks for none.
	Lock  time.Duration
	next  atomic.Int64
	noise []byte
}

// NewYardstick makes a yardstick over a store.
func NewYardstick(store storage.Store, lock time.Duration) *Yardstick {
	return &Yardstick{Store: store, Lock: lock, noise: noise()}
}

// inMemory is up to which size a body is held in memory; a larger one is staged, where the store lends room, so
// that it is written once.
const inMemory = 4 << 20

func (y *Yardstick) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := y.take(r.Context(), r.Body, r.ContentLength); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// Handler serves the yardstick where an archive takes submissions.
func (y *Yardstick) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/producers/{producer}/submissions", y)
	return mux
}

// Send implements [Target].
func (y *Yardstick) Send(ctx context.Context, d Document) error {
	body, length := d.form(y.noise)
	return y.take(ctx, body, length)
}

// Settle implements [Target].
func (y *Yardstick) Settle(context.Context) error { return nil }

// take puts a body under a new key, spread over folders as packages are.
func (y *Yardstick) take(ctx context.Context, body io.Reader, length int64) (err error) {
	n := y.next.Add(1)
	sum := sha256.Sum256(fmt.Append(nil, n))
	key := fmt.Sprintf("yardstick/packages/%02x/%s", sum[0], hex.EncodeToString(sum[:10]))
	o := storage.PutOptions{Size: length}
	if y.Lock > 0 {
		o.RetainUntil = time.Now().Add(y.Lock)
	}
	stager, lends := y.Store.(storage.Stager)
	if length <= inMemory || !lends {
		b := make([]byte, length)
		if _, err := io.ReadFull(body, b); err != nil {
			return err
		}
		o.SHA256 = sha256.Sum256(b)
		return y.Store.Put(ctx, key, bytes.NewReader(b), o)
	}
	staged, err := stager.Stage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	if _, err := io.Copy(io.NewOffsetWriter(staged, 0), body); err != nil {
		return err
	}
	if o.Size, o.SHA256, err = staged.Seal(ctx); err != nil {
		return err
	}
	return y.Store.Put(ctx, key, staged, o)
}
