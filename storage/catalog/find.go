package catalog

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// ByID finds a package by its identifier, annulled or not.
func (c *Catalog) ByID(producer, id string) (r Record, found bool, err error) {
	a, ok := c.account(producer)
	err = c.do(func() error {
		if !ok {
			return nil
		}
		return c.db.View(func(txn *badger.Txn) (err error) {
			r, found, err = byID(txn, producer, a.tenant, id)
			return err
		})
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("find %s of %s in the catalog: %w", id, producer, err)
	}
	return r, found, nil
}

// ByKey finds the newest generation of a key, annulled or not.
func (c *Catalog) ByKey(producer, keyHMAC string) (Record, bool, error) {
	all, err := c.Generations(producer, keyHMAC)
	if err != nil || len(all) == 0 {
		return Record{}, false, err
	}
	return all[len(all)-1], true, nil
}

// Generations finds all records of a key, annulled or not, oldest generation first; of records of one
// generation, which a sound ledger does not have, the one with the lower entry first.
func (c *Catalog) Generations(producer, keyHMAC string) (all []Record, err error) {
	a, ok := c.account(producer)
	err = c.do(func() error {
		if !ok {
			return nil
		}
		return c.db.View(func(txn *badger.Txn) error {
			return each(txn, generationsPrefix(a.tenant, keyHMAC), true, func(_, value []byte) error {
				r, err := followed(txn, producer, a.tenant, value)
				if err == nil && r.KeyHMAC == keyHMAC {
					all = append(all, r)
				}
				return err
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("find a key of %s in the catalog: %w", producer, err)
	}
	return all, nil
}

func byID(txn *badger.Txn, producer string, t tenant, id string) (Record, bool, error) {
	r, found, err := recordOf(txn, identityKey(t, id), func(v []byte) (Record, error) {
		return followed(txn, producer, t, v)
	})
	if err != nil || !found || r.ID != id {
		return Record{}, false, err
	}
	return r, true, nil
}

// followed reads the record that the value of another key points to; that it is missing is damage.
func followed(txn *badger.Txn, producer string, t tenant, value []byte) (Record, error) {
	var at position
	if len(value) != len(at) {
		return Record{}, fmt.Errorf("%w: a key points nowhere", ErrDamaged)
	}
	copy(at[:], value)
	r, found, err := byPosition(txn, producer, t, at)
	if err == nil && !found {
		err = fmt.Errorf("%w: a record is missing", ErrDamaged)
	}
	return r, err
}

func byPosition(txn *badger.Txn, producer string, t tenant, at position) (Record, bool, error) {
	return recordOf(txn, recordKey(t, at), func(v []byte) (Record, error) {
		return recordAt(producer, at, v)
	})
}

// recordOf gives the record that read makes of a key's value; a key that is not there is no error.
func recordOf(txn *badger.Txn, key []byte, read func(value []byte) (Record, error)) (Record, bool, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, err
	}
	var r Record
	err = item.Value(func(v []byte) (err error) {
		r, err = read(v)
		return err
	})
	return r, err == nil, err
}

// recordAt parses a record and holds it against the key it was found under.
func recordAt(producer string, at position, value []byte) (Record, error) {
	r, err := parseRecord(producer, value)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if positionOf(parseDate(r.Date), r.Index) != at {
		return Record{}, fmt.Errorf("%w: a record lies under another's key", ErrDamaged)
	}
	return r, nil
}
