package topo

import "testing"

func TestFirstKeepsTheUsersOfItsSites(t *testing.T) {
	whole := Default(1)
	part := whole.First(3)
	if len(part.Sites) != 3 || len(whole.Sites) != 6 {
		t.Fatalf("%d of %d sites", len(part.Sites), len(whole.Sites))
	}
	users := 0
	for i, s := range part.Sites {
		if s != whole.Sites[i] || part.UsersOf(i) != whole.UsersOf(i) || part.UsersOf(i) == 0 {
			t.Errorf("%s has %d users, had %d", s.Name, part.UsersOf(i), whole.UsersOf(i))
		}
		users += part.UsersOf(i)
	}
	if users != len(part.Users) || part.RTT(0, 2) != whole.RTT(0, 2) {
		t.Errorf("%d users at home of %d, RTT %v", users, len(part.Users), part.RTT(0, 2))
	}
	if whole.First(6) != whole || whole.First(99) != whole {
		t.Error("the whole is not itself")
	}
}
