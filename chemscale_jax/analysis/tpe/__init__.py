"""Training performance estimation: from early training losses to the final loss."""
