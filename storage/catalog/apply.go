package catalog

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Change is what one or more commits do to the records of a producer. Put comes first, Forget last.
type Change struct {
	Put    []Record // a record replaces the one with its ID, or with its Index and Date
	Annul  []string // identifiers; an unknown one is passed over
	Forget []string // likewise
}

// Bounds of one transaction, well under what Badger takes (15 % of a memory table).
const (
	maxTxnBytes = memtable / 10
	maxTxnKeys  = 12_000
)

// Apply brings the records of a producer from State to next, whose Count and Digest it computes itself. It
// does nothing when next.Commit is applied already. All of it is one transaction, so that State never
// claims a record that is not there; only a change of more than 0.8 MB (some 1200 records) is written in several, the
// state with the last, and is to be applied again after a crash. ErrFull means that nothing was written, or
// such a part.
func (c *Catalog) Apply(producer string, ch Change, next State) error {
	err := c.do(func() error {
		c.writing.Lock()
		defer c.writing.Unlock()
		return c.apply(producer, ch, next)
	})
	if err != nil {
		return fmt.Errorf("apply commit %d of %s to the catalog: %w", next.Commit, producer, err)
	}
	return nil
}

func (c *Catalog) apply(producer string, ch Change, next State) error {
	w := c.begin(producer)
	defer w.discard()
	if next.Commit <= w.account.state.Commit {
		return nil
	}
	for i := range ch.Put {
		r := &ch.Put[i]
		if r.Producer != producer {
			return fmt.Errorf("%w: %s is of producer %q", ErrRecord, r.ID, r.Producer)
		}
		if err := w.makeRoom(); err != nil {
			return err
		}
		if err := w.put(r); err != nil {
			return err
		}
	}
	for _, id := range ch.Annul {
		if err := w.makeRoom(); err != nil {
			return err
		}
		if err := w.annul(id); err != nil {
			return err
		}
	}
	for _, id := range ch.Forget {
		if err := w.makeRoom(); err != nil {
			return err
		}
		if err := w.forget(id); err != nil {
			return err
		}
	}
	w.account.state.Commit, w.account.state.Size, w.account.state.Root = next.Commit, next.Size, next.Root
	return w.commit()
}

// Reset forgets all of a producer, so that its ledger can be applied from the start. What it held is out of
// reach at once and deleted behind.
func (c *Catalog) Reset(producer string) error {
	err := c.do(func() error {
		c.writing.Lock()
		defer c.writing.Unlock()
		w := c.begin(producer)
		defer w.discard()
		if w.created {
			return nil
		}
		old := w.account.tenant
		w.meta.tenant++
		w.account = account{tenant: w.meta.tenant, state: State{Commit: -1}}
		w.ops = append(w.ops, op{kind: opDrop, tenant: old})
		if err := w.txn.Set(droppedKey(old), nil); err != nil {
			return err
		}
		return w.commit()
	})
	if err != nil {
		return fmt.Errorf("reset %s in the catalog: %w", producer, err)
	}
	return nil
}

// writer is a change of one producer in the making: a transaction and the account after it.
type writer struct {
	c        *Catalog
	producer string
	created  bool
	txn      *badger.Txn
	account  account
	meta     meta
	ops      []op
	keys     int // written in this transaction
	bytes    int
}

func (c *Catalog) begin(producer string) *writer {
	a, known := c.account(producer)
	w := &writer{c: c, producer: producer, created: !known, account: a, meta: c.meta, txn: c.db.NewTransaction(true)}
	if !known {
		w.meta.tenant++
		w.account.tenant = w.meta.tenant
	}
	return w
}

func (w *writer) discard() { w.txn.Discard() }

// makeRoom commits what there is before the transaction gets too large for one more record.
func (w *writer) makeRoom() error {
	if w.bytes < maxTxnBytes && w.keys < maxTxnKeys {
		return nil
	}
	if err := w.commit(); err != nil {
		return err
	}
	w.txn = w.c.db.NewTransaction(true)
	w.keys, w.bytes, w.ops = 0, 0, nil
	return nil
}

// commit writes the transaction with the account, then lets it be seen.
func (w *writer) commit() error {
	if err := w.c.room(); err != nil {
		return err
	}
	if len(w.ops) > 0 {
		w.meta.seq++
		var feed []byte
		for _, o := range w.ops {
			feed = appendOp(feed, o)
		}
		if err := w.txn.Set(feedKey(w.meta.seq), seal(feed)); err != nil {
			return err
		}
	}
	err := errors.Join(
		w.txn.Set([]byte{kindMeta}, w.meta.encode()),
		w.txn.Set(producerKey(w.producer), w.account.encode()))
	if err != nil {
		return err
	}
	if err := w.txn.Commit(); err != nil {
		return err
	}
	w.c.sizes.since += int64(w.bytes)
	a := w.account
	w.c.mu.Lock()
	w.c.accounts[w.producer], w.c.meta = &a, w.meta
	w.c.mu.Unlock()
	w.c.fill.notify(w.ops)
	return nil
}

func (w *writer) put(r *Record) error {
	old, found, err := byID(w.txn, w.producer, w.account.tenant, r.ID)
	if err == nil && found {
		err = w.remove(&old)
	}
	if err != nil {
		return err
	}
	at := positionOf(parseDate(r.Date), r.Index)
	old, found, err = byPosition(w.txn, w.producer, w.account.tenant, at)
	if err == nil && found {
		err = w.remove(&old)
	}
	if err != nil {
		return err
	}
	return w.add(r)
}

func (w *writer) annul(id string) error {
	r, found, err := byID(w.txn, w.producer, w.account.tenant, id)
	if err != nil || !found || r.Annulled {
		return err
	}
	if err := w.remove(&r); err != nil {
		return err
	}
	r.Annulled = true
	return w.add(&r)
}

func (w *writer) forget(id string) error {
	r, found, err := byID(w.txn, w.producer, w.account.tenant, id)
	if err != nil || !found {
		return err
	}
	return w.remove(&r)
}

func (w *writer) add(r *Record) error {
	all := pairs(w.account.tenant, r)
	if len(all[0].value) > maxRecord {
		return fmt.Errorf("%w: %s takes more than %d bytes", ErrRecord, r.ID, maxRecord)
	}
	for _, p := range all {
		if err := w.txn.Set(p.key, p.value); err != nil {
			return err
		}
		w.account.total.add(p.digest())
		w.wrote(p)
	}
	w.account.records++
	if !r.Annulled {
		w.account.state.Count++
		live := sum(w.account.state.Digest)
		live.add(sha256.Sum256(r.Identity()))
		w.account.state.Digest = live
	}
	w.touch(r)
	return nil
}

func (w *writer) remove(r *Record) error {
	for _, p := range pairs(w.account.tenant, r) {
		if err := w.txn.Delete(p.key); err != nil {
			return err
		}
		w.account.total.sub(p.digest())
		w.wrote(pair{key: p.key})
	}
	w.account.records--
	if !r.Annulled {
		w.account.state.Count--
		live := sum(w.account.state.Digest)
		live.sub(sha256.Sum256(r.Identity()))
		w.account.state.Digest = live
	}
	w.touch(r)
	return nil
}

func (w *writer) touch(r *Record) {
	at := positionOf(parseDate(r.Date), r.Index)
	w.ops = append(w.ops, op{kind: opTouch, tenant: w.account.tenant, at: at})
	w.bytes += opSize
}

// wrote counts a key as Badger does, with its own few bytes.
func (w *writer) wrote(p pair) {
	w.keys++
	w.bytes += len(p.key) + len(p.value) + 16
}
