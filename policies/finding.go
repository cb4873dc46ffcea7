package policies

// Level says what a finding does to a submission.
type Level string

const (
	Error   Level = "error"   // the submission is refused
	Warning Level = "warning" // admitted, and the receipt says so
	Info    Level = "info"    // worth knowing
)

// Finding is one thing found while a submission was looked at: what, where, by which rule, and what to do.
type Finding struct {
	// Field is the path of the member: "subject", "files[2].name"; "$" is the whole description.
	Field string `json:"field"`
	// Rule is the id of a rule of the table in the package comment.
	Rule  string `json:"rule"`
	Level Level  `json:"level"`
	// Message and Remedy are the Italian texts. What they quote from the submission is escaped and shortened.
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
	// Args are the parameters of the texts, so that In can render them in another language.
	Args map[string]string `json:"args,omitempty"`
}

// Refused reports whether any finding refuses the submission.
func Refused(fs []Finding) bool {
	for _, f := range fs {
		if f.Level == Error {
			return true
		}
	}
	return false
}
