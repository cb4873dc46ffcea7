package doctor

import "github.com/marchesud/perenne/storage"

// Text is something said to a person, in both languages.
type Text struct{ IT, EN string }

// Words say a probe to a system administrator.
type Words struct {
	// Promise is what has to hold.
	Promise Text
	// Meaning is what it means for the archive when it does not.
	Meaning Text
	// Note is what Perenne does about what the store cannot do, where that is no fault (storage.Noted).
	Note Text
	// Remedy is what to do when it does not hold.
	Remedy Text
}

// Words returns those of a result's probe.
func (r Result) Words() Words {
	w := words[r.Name]
	if r.Verdict == storage.Untold && w.Remedy == otherStore { // nothing was found wrong with this one
		w.Remedy = Text{
			"riprovare fra poco; se resta così, il perché sta nel registro dello store",
			"try again in a moment; if it stays so, the store's own log says why",
		}
	}
	return w
}

// otherStore is the remedy for what cannot be configured.
var otherStore = Text{
	"usare un altro prodotto, o la sua versione più recente: questo difetto non si corregge con la configurazione",
	"use another product, or its newest version: no setting mends this",
}

var words = map[string]Words{
	"writable": {
		Promise: Text{"nello store si può scrivere, e si rilegge ciò che si è scritto", "the store can be written to, and gives back what was written"},
		Meaning: Text{"nessun versamento può essere accettato", "no submission can be accepted"},
		Remedy: Text{
			"liberare spazio (byte e inode) o ingrandire lo store; controllare permessi, credenziali e che non sia montato in sola lettura",
			"make room (bytes and inodes) or enlarge the store; look at rights and credentials, and whether it is mounted read-only",
		},
	},
	"create-once": {
		Promise: Text{"un oggetto già scritto non viene mai sovrascritto", "an object that is there is never written over"},
		Meaning: Text{"una scrittura ripetuta o concorrente cancellerebbe un documento già preso in carico", "a repeated or concurrent write would destroy a document already taken in charge"},
		Remedy: Text{
			"serve uno store che rispetti la scrittura condizionata (If-None-Match: *), senza proxy che la tolga",
			"a store that heeds the conditional write (If-None-Match: *) is needed, without a proxy that strips it",
		},
	},
	"one-winner": {
		Promise: Text{"di più scritture contemporanee della stessa chiave ne riesce una sola", "of several writes of one key at the same moment only one succeeds"},
		Meaning: Text{"due processi crederebbero entrambi di aver scritto lo stesso numero del giornale: ricevute valide andrebbero perse", "two processes would both believe they wrote the same number of the ledger: valid receipts would be lost"},
		Remedy:  otherStore,
	},
	"slow-against-fast": {
		Promise: Text{"una scrittura lenta non sostituisce quella veloce già confermata", "a slow write does not replace a fast one that was acknowledged"},
		Meaning: Text{"un oggetto già confermato sparirebbe sotto uno arrivato dopo", "an acknowledged object would vanish under one that came later"},
		Remedy:  otherStore,
	},
	"digest": {
		Promise: Text{"byte diversi dall'impronta annunciata sono rifiutati, e non resta nulla", "bytes that do not have the digest announced are refused, and nothing stays"},
		Meaning: Text{"un errore di trasmissione diventerebbe un oggetto conservato", "an error of transmission would become a kept object"},
		Remedy:  otherStore,
	},
	"read-back": {
		Promise: Text{"si rilegge ciò che si è scritto, intero e a tratti", "what was written is read back, whole and by ranges"},
		Meaning: Text{"i documenti non potrebbero essere restituiti né verificati", "documents could be neither given back nor checked"},
		Remedy:  otherStore,
	},
	"listing": {
		Promise: Text{"l'elenco degli oggetti è completo, in ordine e senza doppioni", "the listing of objects is complete, in order and without duplicates"},
		Meaning: Text{"oggetti estranei o cancellati sfuggirebbero alla verifica", "foreign or deleted objects would escape the audit"},
		Remedy:  otherStore,
	},
	"erase": {
		Promise: Text{"ciò che nessun blocco trattiene si cancella davvero", "what no lock holds can really be erased"},
		Meaning: Text{"i dati personali non bloccati non potrebbero essere cancellati, né gli indici rifatti", "unlocked personal data could not be erased, nor indexes made again"},
		Note:    Text{"lo scarto non sarà possibile su questo store", "disposal will not be possible on this store"},
		Remedy: Text{
			"togliere dal bucket la conservazione predefinita (default retention): Perenne blocca da sé ogni oggetto che lo richiede; dare alle credenziali il diritto di cancellare versioni",
			"take the default retention from the bucket: Perenne locks by itself every object that needs it; give the credentials the right to delete versions",
		},
	},
	"lock": {
		Promise: Text{"ciò che è bloccato non si cancella fino alla sua data, che si può solo spostare in avanti", "what is locked cannot be erased until its date, which can only be moved on"},
		Meaning: Text{"un amministratore o un programma potrebbe cancellare documenti conservati", "an administrator or a program could erase kept documents"},
		Remedy: Text{
			"creare il bucket con Object Lock e dare alle credenziali il diritto di impostare la conservazione (s3:PutObjectRetention)",
			"make the bucket with Object Lock and give the credentials the right to set retention (s3:PutObjectRetention)",
		},
	},
	"hold": {
		Promise: Text{"il blocco legale (legal hold) trattiene un oggetto finché non è tolto", "a legal hold keeps an object until it is lifted"},
		Meaning: Text{"un oggetto sotto blocco dello scarto potrebbe essere cancellato", "an object on hold could be erased"},
		Remedy: Text{
			"dare alle credenziali il diritto s3:PutObjectLegalHold, o usare un prodotto che lo rispetti",
			"give the credentials the right s3:PutObjectLegalHold, or use a product that heeds it",
		},
	},

	// The embedded store's.
	"local-file-system": {
		Promise: Text{"la cartella è su un file system locale", "the folder is on a local file system"},
		Meaning: Text{"su un file system di rete due macchine possono scrivere lo stesso nome, e ciò che è sincronizzato può non esserlo", "on a network file system two machines can write one name, and what was synced may not be"},
		Note:    Text{"Perenne lo usa, ma ciò che promette dipende da quello che c'è sotto", "Perenne uses it, but what it promises depends on what lies below"},
		Remedy:  Text{"spostare store.dir su un disco di questa macchina, o usare uno store S3", "move store.dir to a disk of this machine, or use an S3 store"},
	},
	"one-file-system": {
		Promise: Text{"tutta la cartella dello store è un solo file system", "the whole folder of the store is one file system"},
		Meaning: Text{"i file non si possono collegare al loro nome finale: i versamenti fallirebbero", "files cannot be linked to their final name: submissions would fail"},
		Remedy:  Text{"smontare ciò che è montato dentro lo store", "unmount what is mounted inside the store"},
	},
	"folder-sync": {
		Promise: Text{"file e cartelle si possono rendere durevoli (fsync)", "files and folders can be made durable (fsync)"},
		Meaning: Text{"dopo una caduta di corrente un documento già confermato potrebbe non esserci", "after a power cut an acknowledged document might not be there"},
		Remedy:  Text{"usare un file system che lo permetta: ext4, xfs, btrfs", "use a file system that allows it: ext4, xfs, btrfs"},
	},
	"unnamed-files": {
		Promise: Text{"un file riceve il suo nome solo quando è completo (O_TMPFILE, linkat)", "a file gets its name only when it is whole (O_TMPFILE, linkat)"},
		Meaning: Text{"un oggetto a metà potrebbe apparire sotto il suo nome", "half an object might appear under its name"},
		Note:    Text{"Perenne usa file temporanei con un nome, che il prossimo avvio rimuove", "Perenne uses temporary files that have a name, which the next start removes"},
		Remedy:  Text{"usare un file system con collegamenti (hard link): ext4, xfs, btrfs", "use a file system with hard links: ext4, xfs, btrfs"},
	},
	"immutable-flag": {
		Promise: Text{"il file system impedisce di cambiare o rimuovere un oggetto, anche a root (immutable flag)", "the file system stops anybody, root included, from changing or removing an object (immutable flag)"},
		Meaning: Text{"gli oggetti si credono protetti e non lo sono", "objects are believed to be protected and are not"},
		Note:    Text{"nessuna protezione preventiva: un oggetto toccato viene scoperto dalle verifiche, e i rapporti lo dicono (detection only)", "nothing prevents a change: audits find an object that was touched, and reports say so (detection only)"},
		Remedy:  Text{"usare ext4, xfs o btrfs, dare al servizio CAP_LINUX_IMMUTABLE e impostare store.immutable: on", "use ext4, xfs or btrfs, give the service CAP_LINUX_IMMUTABLE and set store.immutable: on"},
	},
	"space": {
		Promise: Text{"ci sono spazio e inode per continuare", "there are space and inodes to go on"},
		Meaning: Text{"i versamenti saranno rifiutati, con un invito a riprovare, finché non se ne libera", "submissions will be put off, to be tried again, until there is room"},
		Note:    Text{"quando finiscono, i versamenti saranno rifiutati con un invito a riprovare", "when they run out, submissions will be put off, to be tried again"},
		Remedy:  Text{"ingrandire il file system; ogni pacchetto vuole un inode, e ext4 ne fissa il numero alla creazione (mkfs.ext4 -N)", "enlarge the file system; each package takes an inode, and ext4 fixes their number when it is made (mkfs.ext4 -N)"},
	},

	// Those of S3.
	"clock": {
		Promise: Text{"l'orologio dello store e quello di questa macchina concordano", "the clock of the store and that of this machine agree"},
		Meaning: Text{"i blocchi finirebbero in un momento diverso da quello voluto, e le richieste firmate sarebbero rifiutate", "locks would end at another time than was meant, and signed requests would be refused"},
		Note:    Text{"la fine di un blocco è decisa dall'orologio dello store", "when a lock ends is decided by the clock of the store"},
		Remedy:  Text{"sincronizzare entrambe le macchine (NTP)", "synchronise both machines (NTP)"},
	},
	"object-lock": {
		Promise: Text{"il bucket ha versioni e Object Lock", "the bucket has versions and Object Lock"},
		Meaning: Text{"chiunque abbia le credenziali potrebbe cancellare i documenti conservati", "whoever has the credentials could delete kept documents"},
		Remedy:  Text{"creare un bucket nuovo con Object Lock (mc mb --with-lock): di solito non si aggiunge dopo", "make a new bucket with Object Lock (mc mb --with-lock): it can seldom be added later"},
	},
	"lock-set": {
		Promise: Text{"il blocco chiesto con un oggetto è quello che l'oggetto riceve", "the lock asked for with an object is the one it gets"},
		Meaning: Text{"gli oggetti si credono bloccati e non lo sono", "objects are believed to be locked and are not"},
		Remedy:  otherStore,
	},
	"lock-past": {
		Promise: Text{"un blocco già scaduto è rifiutato", "a lock that has ended already is refused"},
		Meaning: Text{"un errore di data passerebbe inosservato e l'oggetto resterebbe senza blocco", "a wrong date would go unnoticed and the object would stay unlocked"},
		Remedy:  otherStore,
	},
	"lock-delete": {
		Promise: Text{"una versione bloccata non si cancella, nemmeno in gruppo o chiedendo di scavalcare i blocchi GOVERNANCE", "a locked version cannot be deleted, not in a batch or by asking to bypass GOVERNANCE locks either"},
		Meaning: Text{"un amministratore o un programma potrebbe cancellare documenti conservati", "an administrator or a program could delete kept documents"},
		Note:    Text{"in modalità GOVERNANCE chi amministra lo store può togliere i blocchi; le verifiche lo scoprono dopo", "in GOVERNANCE mode who administers the store can lift locks; audits find it out afterwards"},
		Remedy:  otherStore,
	},
	"hold-delete": {
		Promise: Text{"una versione sotto blocco legale non si cancella", "a version on legal hold cannot be deleted"},
		Meaning: Text{"un oggetto sotto blocco dello scarto potrebbe essere cancellato", "an object on hold could be deleted"},
		Remedy:  otherStore,
	},
	"lock-shorten": {
		Promise: Text{"un blocco non si accorcia", "a lock cannot be shortened"},
		Meaning: Text{"chi ha le credenziali potrebbe anticipare la fine dei blocchi, e poi cancellare", "whoever has the credentials could make locks end early, and then delete"},
		Remedy:  otherStore,
	},
	"lock-downgrade": {
		Promise: Text{"un blocco COMPLIANCE non diventa GOVERNANCE", "a COMPLIANCE lock does not become a GOVERNANCE one"},
		Meaning: Text{"chi ha le credenziali potrebbe indebolire i blocchi, e poi scavalcarli", "whoever has the credentials could weaken locks, and then bypass them"},
		Note:    Text{"in modalità GOVERNANCE non c'è nulla di più debole", "in GOVERNANCE mode there is nothing weaker"},
		Remedy:  otherStore,
	},
	"older-versions": {
		Promise: Text{"una versione coperta da un'altra resta bloccata e leggibile", "a version under another one stays locked and can still be read"},
		Note:    Text{"Perenne non sa fino a quando una tale versione è bloccata: lo scopre quando lo store rifiuta di cancellarla", "Perenne does not know how long such a version is locked: it finds out when the store refuses to erase it"},
		Meaning: Text{"un programma che sovrascrive distruggerebbe i documenti conservati", "a program that overwrites would destroy kept documents"},
		Remedy:  otherStore,
	},
	"delete-marker": {
		Promise: Text{"sotto un marcatore di cancellazione la versione resta, si legge e il marcatore si toglie", "under a delete marker the version stays, can be read, and the marker can be removed"},
		Meaning: Text{"una cancellazione, che S3 permette sempre, distruggerebbe un documento invece di nasconderlo", "a deletion, which S3 always allows, would destroy a document instead of hiding it"},
		Remedy:  otherStore,
	},
	"create-over-marker": {
		Promise: Text{"che cosa fa una scrittura condizionata sopra un marcatore di cancellazione", "what a conditional write over a delete marker does"},
		Meaning: Text{"non si sa come si comporta lo store", "it is not known how the store behaves"},
		Note:    Text{"Perenne non se ne fida: guarda le versioni, e un marcatore è un allarme", "Perenne does not rely on it: it looks at the versions, and a marker is an alarm"},
		Remedy:  Text{"riprovare; controllare le credenziali", "try again; look at the credentials"},
	},
	"version-listing": {
		Promise: Text{"l'elenco delle versioni, in più pagine, le contiene tutte, in ordine e una volta sola", "the listing of versions, in several pages, has all of them, in order and once"},
		Meaning: Text{"versioni e marcatori sfuggirebbero alla verifica", "versions and markers would escape the audit"},
		Note:    Text{"Perenne toglie i doppioni", "Perenne drops the repetitions"},
		Remedy:  otherStore,
	},
	"multipart-one-winner": {
		Promise: Text{"di più caricamenti in parti conclusi insieme ne riesce uno solo", "of several uploads in parts completed together only one succeeds"},
		Meaning: Text{"un documento grande già confermato sparirebbe sotto un altro", "a large document already acknowledged would vanish under another"},
		Remedy:  otherStore,
	},
	"multipart-digest": {
		Promise: Text{"una parte con byte diversi dalla sua impronta è rifiutata", "a part whose bytes do not have its digest is refused"},
		Meaning: Text{"un errore di trasmissione si scoprirebbe solo alla rilettura", "an error of transmission would be found only when reading back"},
		Remedy:  otherStore,
	},
	"multipart-lock": {
		Promise: Text{"anche un oggetto caricato in parti riceve il suo blocco", "an object uploaded in parts gets its lock too"},
		Meaning: Text{"i documenti grandi resterebbero senza blocco", "large documents would stay unlocked"},
		Remedy:  otherStore,
	},
	"durability": {
		Promise: Text{"ciò che è confermato resiste a una caduta di corrente dello store", "what is acknowledged survives a power cut of the store"},
		Meaning: Text{"un oggetto confermato potrebbe non esserci più", "an acknowledged object might be gone"},
		Note:    Text{"un 200 non prova che un oggetto sia durevole: Perenne tiene nello spool gli stessi byte finché non li ha riletti, e rimette ciò che lo store ha perso", "a 200 does not prove that an object is durable: Perenne keeps the same bytes in its spool until it has read them back, and puts again what the store has lost"},
		Remedy:  Text{"lo store deve rispondere", "the store must answer"},
	},
	"durability-unheld": {
		Promise: Text{"ciò che è confermato resiste a una caduta di corrente dello store", "what is acknowledged survives a power cut of the store"},
		Meaning: Text{"un oggetto confermato potrebbe non esserci più", "an acknowledged object might be gone"},
		Note:    Text{"un 200 non prova che un oggetto sia durevole, e store.spool.read_back è 0s: nessuno tiene gli stessi byte, ciò che lo store perde è perso", "a 200 does not prove that an object is durable, and store.spool.read_back is 0s: nobody keeps the same bytes, what the store loses is lost"},
		Remedy:  Text{"lo store deve rispondere", "the store must answer"},
	},
	"read-checks": {
		Promise: Text{"lo store si accorge dei byte guasti quando li legge", "the store notices damaged bytes when it reads them"},
		Meaning: Text{"byte guasti arriverebbero come buoni", "damaged bytes would come as good ones"},
		Note:    Text{"Perenne ricalcola l'impronta di tutto ciò che legge, e le verifiche leggono tutto", "Perenne computes the digest of all it reads, and audits read everything"},
		Remedy:  Text{"lo store deve rispondere", "the store must answer"},
	},
	"versioning": {
		Promise: Text{"le versioni del bucket non si possono sospendere", "the bucket's versioning cannot be suspended"},
		Meaning: Text{"una scrittura sopra un oggetto lo distruggerebbe", "a write over an object would destroy it"},
		Remedy:  otherStore,
	},
	"encryption": {
		Promise: Text{"lo store cifra gli oggetti come è stato chiesto (store.s3.sse), e lo dice", "the store encrypts objects as it was asked to (store.s3.sse), and says so"},
		Meaning: Text{"i documenti starebbero in chiaro sui dischi dello store, o sotto un'altra chiave, oppure nessuno potrebbe essere scritto", "documents would lie in clear on the disks of the store, or under another key, or none could be written"},
		Note:    Text{"che l'alias indichi la chiave voluta va controllato nel KMS", "that the alias stands for the key that was meant is to be looked up in the KMS"},
		Remedy: Text{
			"configurare la cifratura (KMS) sullo store e controllare store.s3.kms_key; oppure togliere store.s3.sse e cifrare i dischi",
			"configure encryption (KMS) on the store and look at store.s3.kms_key; or remove store.s3.sse and encrypt the disks",
		},
	},
	"default-lock": {
		Promise: Text{"il blocco scritto con un oggetto non dipende da quello predefinito del bucket", "the lock written with an object does not depend on the bucket's default"},
		Meaning: Text{"cambiando un'impostazione del bucket cadrebbero i blocchi", "a change of a setting of the bucket would lift locks"},
		Note:    Text{"Perenne non si fida mai del blocco predefinito del bucket: ogni oggetto porta il suo", "Perenne never relies on the bucket's default: every object carries its own lock"},
		Remedy:  otherStore,
	},
}
