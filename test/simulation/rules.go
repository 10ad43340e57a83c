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

// rules are all that can be broken.
var rules = []rule{
	joinLoad, authorityEnds, ackCounts, nackCounts, claimHeld, claimLease, renewAuthority, renewSync,
	renewNewcomer, renewFloor, leaseRecord, departedBlocks, departedRestart, rejoinRecord, gateAll,
	gateApplied, gateClaims, gateJWKS, fenceMember, fenceLeader, fenceKeys, signOpen, signHorizon,
	signRevoked, signStopped, threeKeys, oneByOne, goneApplied, goneDeparted, goneLifetime, goneSkew,
	goneClock, lifetimeRecord, revokeSwap, revokeFloor, revokeOpen, receiptApplied, receiptLease,
	receiptDeparted, entryLeaves, issuedBefore, cutOffServes, fileLater,
}

// breaks says whether a rule is broken in this world.
func (w *world) breaks(r rule) bool { return w.broken == r }
