"""Who is who among ranks, how they are started, and what they exchange."""
