package kafka

import "github.com/segmentio/kafka-go"

// Share has the group's leader share partitions out by b.
func (g *Group) Share(b kafka.GroupBalancer) { g.balancer = b }
