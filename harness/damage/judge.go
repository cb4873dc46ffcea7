package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

// wound is one damage, done.
type wound struct {
	kind, how string
	// must are the keys that a finding of damage must name; empty for what does not hurt, such as another owner of a
	// file, and for what nothing is held against: records, which are personal data and erasable.
	must []string
	// orphans are the keys that a notice must name: a sound package of ours in a second place.
	orphans []string
	// warned are the keys that a warning about their lock must name.
	warned []string
	// unread: the store gives nothing of it any more, so that its being unchecked names it too.
	unread bool
	// undo makes it undone, as the administrator who did it would.
	undo func() error
}

func (w *wound) String() string {
	return fmt.Sprintf("%s of a %s, hurting %q", w.how, w.kind, w.must)
}

// hurtsKind reports whether one of the objects hurt is of a kind.
func (w *wound) hurtsKind(kind string) bool {
	return slices.ContainsFunc(w.must, func(key string) bool { return kindOf(key) == kind })
}

// judgement is what was wrong with what audits said of wounds.
type judgement struct {
	named    map[string]bool
	warned   map[string]bool // whose short locks were warned of
	missed   []string        // hurt and not named, or called good
	invented []string        // named and not hurt
	audits   int64
}

// misses wants the judgement to say of each key hurt that it was not named, and nothing else: the mark of an audit that
// does not look.
func (j *judgement) misses(w *wound) error {
	for _, key := range w.must {
		if !slices.ContainsFunc(j.missed, func(said string) bool { return strings.Contains(said, "does not name "+key+":") }) {
			return fmt.Errorf("an audit that does not name %s was not seen: %+v", key, j)
		}
	}
	if len(w.must) == 0 || len(j.invented) > 0 {
		return fmt.Errorf("of an audit that does not name %q more was said, or nothing was to be: %+v", w.must, j)
	}
	return nil
}

// accuses wants the judgement to say that each key hurt was named though nobody had hurt it, and nothing else.
func (j *judgement) accuses(w *wound) error {
	for _, key := range w.must {
		if !slices.ContainsFunc(j.invented, func(said string) bool { return strings.Contains(said, key) }) {
			return fmt.Errorf("an audit that accuses %s was not seen: %+v", key, j)
		}
	}
	if len(w.must) == 0 || len(j.missed) > 0 {
		return fmt.Errorf("of an audit that accuses %q more was said, or nothing was to be: %+v", w.must, j)
	}
	return nil
}

// sound wants nothing to be said of an audit without a bug.
func (j *judgement) sound(w *wound) error {
	if j.fine() {
		return nil
	}
	return fmt.Errorf("a sound audit of %s was not taken for one: %+v", w, j)
}

func (j *judgement) fine() bool { return len(j.missed)+len(j.invented) == 0 }

// auditor audits a body and returns the report.
type auditor func(ctx context.Context, producer string) (*paper.Report, error)

// in audits an open archive.
func in(a *archive.Archive) auditor {
	return func(ctx context.Context, producer string) (*paper.Report, error) {
		out, err := a.Audit(ctx, archive.Scope{Producer: producer})
		if err != nil {
			return nil, err
		}
		return out.Report, out.Close()
	}
}

// judge has each body audited and holds what is said against the wounds: each object hurt is named, nothing else
// is, and the verdict says so.
func judge(ctx context.Context, audit auditor, wounds []*wound) (*judgement, error) {
	j := &judgement{named: map[string]bool{}, warned: map[string]bool{}}
	for _, p := range bodies {
		r, err := audit(ctx, p)
		if err != nil {
			return nil, err
		}
		j.audits++
		j.hold(r, p, wounds)
	}
	for _, w := range wounds {
		for _, key := range w.warned {
			if owner(key) == "" && !j.warned[key] {
				j.missed = append(j.missed, "no audit warns of the lock of "+key)
			}
		}
	}
	return j, nil
}

// recovery is how long a body that stood still may take to go on by itself once nothing is hurt any more.
const recovery = 20 * time.Second

// whole judges when nothing is hurt any more.
func whole(ctx context.Context, audit auditor) (*judgement, error) {
	for began := time.Now(); ; {
		j, err := judge(ctx, audit, nil)
		if err != nil || j.fine() || time.Since(began) > recovery {
			return j, err
		}
		time.Sleep(time.Second)
	}
}

func (j *judgement) hold(r *paper.Report, producer string, wounds []*wound) {
	hurt, orphans, warned, unread := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	own, doubtful := false, false // something of this body's is hurt; something that others rest on is
	for _, w := range wounds {
		for _, key := range w.must {
			hurt[key] = true
			unread[key] = w.unread
			own = own || j.concerns(key, producer)
		}
		for _, key := range w.warned {
			if shared := owner(key) == ""; shared || owner(key) == producer {
				warned[key] = !shared // the first audit that meets a short lock may have it extended: one is enough
			}
		}
		for _, key := range w.orphans {
			orphans[key] = owner(key) == producer
		}
		doubtful = doubtful || w.hurtsKind("commit") || w.hurtsKind("seal")
	}
	var named []string
	for _, f := range r.Findings {
		switch {
		case f.Gravity == paper.Damage && (hurt[f.Object] || f.Kind == "rollback" && hurtIn(hurt, f.Object+"/")):
			named = append(named, f.Object)
		case f.Gravity == paper.Damage:
			j.invented = append(j.invented, fmt.Sprintf("audit of %s: %s", producer, text(f)))
		case f.Kind == "lock" && f.Gravity == paper.Warning && known(warned, f.Object):
			delete(warned, f.Object)
			j.warned[f.Object] = true
		case f.Kind == "orphan" && orphans[f.Object]:
			delete(orphans, f.Object)
		case f.Kind == "orphan" && hurtIn(hurt, producer+"/ledger/"): // the commit that names it
		case f.Kind == "probe" && strings.HasPrefix(f.Object, "doctor/"):
		default:
			j.invented = append(j.invented, fmt.Sprintf("audit of %s: %s", producer, text(f)))
		}
	}
	for key := range unread {
		if unread[key] && slices.ContainsFunc(r.NotChecked, func(what string) bool { return strings.Contains(what, key) }) {
			named = append(named, key)
		}
	}
	for key, mine := range warned {
		if mine {
			j.missed = append(j.missed, fmt.Sprintf("audit of %s does not warn of the lock of %s: %s", producer, key, text(r.Findings)))
		}
	}
	for key := range hurt {
		if j.concerns(key, producer) && !slices.Contains(named, key) {
			j.missed = append(j.missed, fmt.Sprintf("audit of %s does not name %s: %s %s, not checked %s", producer, key, r.Verdict, text(r.Findings), text(r.NotChecked)))
		}
	}
	for key, mine := range orphans {
		if mine {
			j.missed = append(j.missed, fmt.Sprintf("audit of %s does not list the orphan %s: %s", producer, key, text(r.Findings)))
		}
	}
	for _, key := range named {
		j.named[key] = true
	}
	switch {
	case own && r.Verdict == paper.VerdictIncomplete && anyOf(unread): // nobody can say what it holds
	case own && r.Verdict != paper.VerdictDamaged:
		j.missed = append(j.missed, fmt.Sprintf("audit of %s says %s of something hurt", producer, r.Verdict))
	case !own && len(named) == 0 && r.Verdict != paper.VerdictGood && !((doubtful || anyOf(unread)) && r.Verdict == paper.VerdictIncomplete):
		j.invented = append(j.invented, fmt.Sprintf("audit of %s says %s of what is whole: %s, not checked %s", producer, r.Verdict, text(r.Findings), text(r.NotChecked)))
	}
}

// concerns reports whether the audit of a body must name a key: what is its own, and what all share. A key in use
// that is gone is put again by the first audit that misses it; the next need not name it.
func (j *judgement) concerns(key, producer string) bool {
	return owner(key) == producer || owner(key) == "" && !(kindOf(key) == "key" && j.named[key])
}

// hurtIn reports whether something under a prefix is hurt.
func hurtIn(hurt map[string]bool, prefix string) bool {
	for key := range hurt {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func known(set map[string]bool, key string) bool {
	_, is := set[key]
	return is
}

func anyOf(set map[string]bool) bool {
	for _, is := range set {
		if is {
			return true
		}
	}
	return false
}
