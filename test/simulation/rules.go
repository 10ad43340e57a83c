package simulation

// rule is a rule of the protocol, or a part of one, that the simulated replica or data
// plane breaks. The numbers are those of docs/rotation.md.
type rule string

// The rules that can be broken.
const (
	keptAll rule = ""

	joinLoad        rule = "1: serves from what was stored before it joined"
	authorityEnds   rule = "2: has authority until it hears that it has none"
	ackCounts       rule = "3: what was sent counts as confirmed"
	nackCounts      rule = "3: a NACK counts as confirmed"
	claimHeld       rule = "4: claims what data planes have not confirmed"
	claimLease      rule = "4: does not wait for the end of leases"
	renewAuthority  rule = "5: gives leases without authority"
	renewSync       rule = "5: gives leases to data planes that are behind"
	renewNewcomer   rule = "5: gives a newcomer a lease before it confirms anything"
	renewFloor      rule = "5: gives leases below the floor"
	leaseRecord     rule = "5: gives longer leases than it has written down"
	departedBlocks  rule = "6: departed members block nothing"
	departedRestart rule = "6: a new leader waits for departed members no more"
	rejoinRecord    rule = "6: a member that joins again leaves its record behind"
	gateAll         rule = "7: opens audiences without the gate"
	gateApplied     rule = "7: does not ask what live members have applied"
	gateClaims      rule = "7: does not ask for claims"
	gateJWKS        rule = "7: does not wait for readers of the JWKS endpoint"
	fenceMember     rule = "7: writes though a member has joined"
	fenceLeader     rule = "7: writes though it leads no more"
	fenceKeys       rule = "7: writes though keys have changed"
	signOpen        rule = "8: signs everything with the newest key"
	signHorizon     rule = "8: signs without end when cut off"
	signRevoked     rule = "8: signs with a key that it knows revoked"
	signStopped     rule = "8: signs after it has recorded that it has stopped"
	threeKeys       rule = "9: publishes a standby whatever is published"
	oneByOne        rule = "9: the new key takes over for all as soon as for one"
	goneApplied     rule = "10: does not ask whether all have applied what is open"
	goneDeparted    rule = "10: departed members may not sign"
	goneLifetime    rule = "10: does not wait for the end of tokens"
	goneSkew        rule = "10: does not count the verifiers' skew"
	goneClock       rule = "10: does not count clock errors"
	lifetimeRecord  rule = "10: signs longer tokens than it has written down"
	revokeSwap      rule = "11: revokes without comparing"
	revokeFloor     rule = "11: revokes without a floor"
	revokeOpen      rule = "11: revokes and opens the standby in two steps"
	receiptApplied  rule = "12: a receipt does not ask what live members have applied"
	receiptLease    rule = "12: a receipt does not wait for data planes"
	receiptDeparted rule = "12: a receipt does not tell of departed members"
	entryLeaves     rule = "13: an entry leaves with its receipt"
	issuedBefore    rule = "13: issued-before does not count clock errors"
	cutOffServes    rule = "14: serves services with leases when cut off"
	fileLater       rule = "15: the file is written after the ACK"
)

// rules are all that can be broken and that some seed notices; for rejoinRecord it takes a
// script of its own (rejoin_test.go).
var rules = []rule{
	joinLoad, authorityEnds, ackCounts, nackCounts, claimHeld, claimLease, renewAuthority, renewSync,
	renewNewcomer, renewFloor, leaseRecord, departedBlocks, departedRestart, gateAll,
	gateApplied, gateClaims, gateJWKS, fenceKeys, signOpen, signHorizon,
	signRevoked, signStopped, threeKeys, oneByOne, goneApplied, goneDeparted, goneLifetime, goneSkew,
	goneClock, lifetimeRecord, revokeSwap, revokeFloor, revokeOpen, receiptApplied, receiptLease,
	receiptDeparted, entryLeaves, issuedBefore, cutOffServes, fileLater,
}

// redundant are rules that are there for safety's sake and that no run can notice, since
// others imply them. What an observer has found true of all members stays true: claims do
// not fall, and what was applied stays applied. So an older leader that writes late, and
// is refused by fenceKeys if keys have changed, writes what was right. And a member that
// has joined after what the leader saw has loaded what is newer than the revision that
// the gate asks for, as the leader's own record shows, which it sees only with a view
// that is later.
var redundant = []rule{fenceMember, fenceLeader}

// noticedBy is a seed that notices that a rule is broken, so that not all have to be
// tried each time.
var noticedBy = map[rule]uint64{
	joinLoad:        4,
	authorityEnds:   89,
	ackCounts:       2,
	nackCounts:      2,
	claimHeld:       2,
	claimLease:      5,
	renewAuthority:  89,
	renewSync:       5,
	renewNewcomer:   5,
	renewFloor:      15,
	leaseRecord:     15,
	departedBlocks:  15,
	departedRestart: 2,
	gateAll:         1,
	gateApplied:     5,
	gateClaims:      5,
	gateJWKS:        19,
	fenceKeys:       1,
	signOpen:        5,
	signHorizon:     14,
	signRevoked:     1,
	signStopped:     254,
	threeKeys:       1,
	oneByOne:        5,
	goneApplied:     15,
	goneDeparted:    14,
	goneLifetime:    2,
	goneSkew:        7,
	goneClock:       4,
	lifetimeRecord:  2,
	revokeSwap:      68,
	revokeFloor:     15,
	revokeOpen:      1,
	receiptApplied:  1,
	receiptLease:    8,
	receiptDeparted: 15,
	entryLeaves:     2,
	issuedBefore:    11,
	cutOffServes:    2799,
	fileLater:       142,
}

// breaks says whether a rule is broken in this world.
func (w *world) breaks(r rule) bool { return w.broken == r }
